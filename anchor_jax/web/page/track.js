// Tracks landmarks and maps them onto the person's body: landmarks/filling.py, hands.py, measures.py and retarget.py for a camera.
// Causal tracking: uses past and current frames only.
import { Arms } from "./rest.js";
import { minus, plus, times } from "./skins.js";
import { sides } from "./solids.js";

const NOSE = 0, EARS = [7, 8], SHOULDERS = [11, 12], ELBOWS = [13, 14], WRISTS = [15, 16], HIPS = [23, 24];
const KNUCKLES = [[17, 19, 21], [18, 20, 22]], LEGS = [[25, 27, 29, 31], [26, 28, 30, 32]];
const SPREAD = { neck: 0.06, upper_arm: 0.06, forearm: 0.12, palm: 0.12 }, FACE_SPREAD = 0.045, SAME_BUILD = 0.54;
const SAME_SCALE = 0.04, SAME_PLACE = [0.06, 0.03], FURTHEST = 2;
const SLOW = 0.12, FAST = 0.02, BRISK = 0.8; // smoothing in seconds at rest and in motion; shoulder widths per second
const HOLD = 0.4; // seconds for which a hand out of view is held
const MEASURED = 250; // frames over which the person in front of the camera is measured
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const middle = (points, pair) => times(plus(points[pair[0]], points[pair[1]]), 0.5);
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const length = (a) => Math.hypot(...a);

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b), at = share * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

export class Tracker {
  // target: measures of the person who is drawn, or null; size: of that person's pictures, a side or width and height.
  constructor(target, size) {
    const [width, height] = sides(size);
    Object.assign(this, { target, width, height, seen: [], last: null, hands: [null, null], arms: new Arms() });
  }

  // Returns {body, face, hands, measures} in pixels of the person's picture, or null if nobody was seen yet. `found` has
  // body, face and hands in pixels of the camera's picture, z toward the viewer, or null for what was not found; and
  // visible, how sure it is that each body point is shown.
  follow(found, width, height, seconds) {
    const held = [0, 1].map((side) => found.body !== null && isHand(found.hands[side], found.body, side));
    const looked = this.arms.look(found, held, width, height, seconds);
    if (looked) this.update({ ...found, body: looked }, seconds);
    if (!this.last?.face) return null;
    const crop = this.cropOf(width, height), { body, face, hands } = this.last;
    const moved = (points) => points.map(([x, y, z]) => times([x - crop.left, y - crop.top, z], crop.scale));
    const inCrop = { body: moved(body), face: moved(face), hands: hands.map(moved) };
    if (found.body) this.measure(inCrop, body, width, height);
    const driver = this.measures(), by = this.target && scales(driver, this.target);
    const result = by ? retarget(inCrop, driver, this.target, by, this.height) : inCrop;
    const measures = this.target ?? driver; // with the lengths and widths of one person
    return { ...this.arms.place(result, measures, this.height, relaxed), measures };
  }

  update(found, seconds) {
    const step = this.last ? clip(seconds - this.last.seconds, 1e-3, 1) : 1;
    const unit = Math.max(distance(found.body[SHOULDERS[0]], found.body[SHOULDERS[1]]), 1);
    const body = this.smooth(this.last?.body, found.body, step, unit);
    let face = this.last?.face;
    if (found.face) face = this.smooth(face, found.face, step, unit);
    else if (face) face = face.map((point) => plus(point, minus(body[NOSE], this.last.body[NOSE])));
    const hands = [0, 1].map((side) => this.updateHand(found.hands[side], body, side, unit, step));
    this.last = { body, face, hands, seconds };
  }

  smooth(before, now, step, unit) {
    if (!before) return now;
    return now.map((point, i) => {
      const share = clip(distance(point, before[i]) / step / unit / BRISK, 0, 1);
      const keep = Math.exp(-step / (SLOW + share * (FAST - SLOW)));
      return plus(times(point, 1 - keep), before[i], keep);
    });
  }

  // A hand attached to its wrist, in the forearm's frame: as found, held, or relaxed.
  updateHand(found, body, side, unit, step) {
    const wrist = body[WRISTS[side]], elbow = body[ELBOWS[side]], turn = Math.atan2(wrist[1] - elbow[1], wrist[0] - elbow[0]);
    const state = (this.hands[side] ??= { local: null, away: Infinity });
    const palm = found && length(minus(found[9], found[0]));
    if (isHand(found, body, side, unit)) {
      const local = found.map(([x, y, z]) => rotate([x - wrist[0], y - wrist[1], z], -turn));
      state.local = state.away < HOLD ? this.smooth(state.local, local, step, unit) : local;
      state.palm = palm;
      state.away = 0;
    } else state.away += step;
    const fade = clip((state.away - HOLD) / 0.2, 0, 1);
    const rest = fade > 0 ? relaxed(body, side, state.palm ?? 0.27 * unit) : null;
    return Array.from({ length: 21 }, (_, i) => {
      const last = state.local && plus(rotate(state.local[i], turn), wrist);
      return !rest ? last : !last ? rest[i] : plus(times(last, 1 - fade), rest[i], fade);
    });
  }

  // The largest part with the shape of the person's pictures, centered as closely as possible on the first positions.
  cropOf(width, height) {
    this.places ??= [];
    if (this.places.length < 25) {
      this.places.push(middle(this.last.body, SHOULDERS));
      const scale = Math.max(this.width / width, this.height / height);
      const corner = (axis, all, inner) =>
        clip(Math.round(percentile(this.places.map((place) => place[axis]), 0.5) - inner / 2), 0, Math.max(all - inner, 0));
      const left = corner(0, width, this.width / scale), top = corner(1, height, this.height / scale);
      this.crop = { left, top, scale };
    }
    return this.crop;
  }

  measure({ body, face, hands }, raw, width, height) {
    if (this.seen.length >= MEASURED) return;
    const shoulders = middle(body, SHOULDERS), inside = ([x, y]) => x >= 0 && y >= 0 && x < width && y < height;
    const limb = (start, end) => [0, 1].filter((side) => inside(raw[start[side]]) && inside(raw[end[side]]))
      .map((side) => distance(body[start[side]], body[end[side]]));
    this.seen.push({
      place: shoulders.slice(0, 2), shoulders: distance(body[SHOULDERS[0]], body[SHOULDERS[1]]),
      neck: distance(middle(body, EARS), shoulders), torso: distance(middle(body, HIPS), shoulders), hips: distance(body[HIPS[0]], body[HIPS[1]]),
      palm: hands.map((hand) => length(minus(hand[9], hand[0]))),
      upper_arm: limb(SHOULDERS, ELBOWS), forearm: limb(ELBOWS, WRISTS),
      face: [length(minus(face[454], face[234])), length(minus(face[10], face[152]))],
    });
    this.known = null;
  }

  // In heights of the person's pictures, like `BodyMeasures`.
  measures() {
    if (this.known) return this.known;
    const all = (of) => this.seen.flatMap(of), share = (values, at) => Math.max(percentile(values, at) / this.height, 1e-3);
    const limb = (name) => {
      const values = all((one) => one[name]);
      return values.length ? share(values, 0.95) : null;
    };
    const pair = (name) => [0, 1].map((i) => percentile(all((one) => one[name][i]), 0.5) / this.height);
    this.known = { place: pair("place"), shoulders: share(all((one) => one.shoulders), 0.8), palm: share(all((one) => one.palm), 0.5),
      upper_arm: limb("upper_arm"), forearm: limb("forearm"), face: pair("face") };
    // The length of an arm that points at the camera in nearly all frames is unknown, see `landmarks/proportions/measures.py`.
    for (const name of ["upper_arm", "forearm"]) if (this.known[name] < 0.4 * this.known.shoulders) this.known[name] = null;
    if (this.known.forearm < 0.45 * this.known.upper_arm) this.known.forearm = null;
    for (const name of ["neck", "torso", "hips"]) this.known[name] = share(all((one) => one[name]), 0.5);
    return this.known;
  }
}

function rotate([x, y, z], angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return [c * x - s * y, s * x + c * y, z];
}

// Whether a found hand lies on its wrist and has the size of a hand.
function isHand(found, body, side, unit = Math.max(distance(body[SHOULDERS[0]], body[SHOULDERS[1]]), 1)) {
  const palm = found && length(minus(found[9], found[0]));
  return Boolean(found) && distance(found[0], body[WRISTS[side]]) < 0.35 * unit && palm > 0.1 * unit && palm < 0.6 * unit;
}

// A hand with slightly bent fingers, placed on the body model's coarse knuckles.
function relaxed(body, side, palm) {
  const [wrist, elbow] = [body[WRISTS[side]], body[ELBOWS[side]]], index = body[KNUCKLES[side][1]], pinky = body[KNUCKLES[side][0]];
  let along = [0, 1].map((i) => (index[i] + pinky[i]) / 2 - wrist[i] + (0.3 * (wrist[i] - elbow[i])) / 3);
  const long = Math.max(Math.hypot(...along), 1e-6);
  along = along.map((value) => value / long);
  const edge = [-along[1], along[0]], lean = ((index[0] - pinky[0]) * edge[0] + (index[1] - pinky[1]) * edge[1]) / palm;
  const wide = (lean >= 0 ? 1 : -1) * clip(Math.abs(lean), 0.5, 0.9);
  const place = (u, v, z) => [...[0, 1].map((i) => wrist[i] + palm * (u * edge[i] * wide + v * along[i])), palm * z + wrist[2]];
  const hand = [[0, 0, 0], [0.3, 0.2, 0.1], [0.52, 0.5, 0.2], [0.6, 0.75, 0.25], [0.62, 0.95, 0.25]].map((at) => place(...at));
  for (const [u, reach] of [[0.33, 0.95], [0.06, 1], [-0.2, 0.95], [-0.44, 0.85]])
    [[1, 0], [1.38, 0.12], [1.6, 0.28], [1.72, 0.42]].forEach(([v, z], joint) => hand.push(place(u * (1 + 0.1 * joint), v * reach, z)));
  return hand;
}

// Factors from the driver's lengths to the target's; null if both are the same person in front of the same camera.
export function scales(driver, target) {
  const overall = target.shoulders / driver.shoulders;
  const pairs = Object.entries(SPREAD).map(([name, spread]) => [driver[name], target[name], spread]);
  if (driver.face && target.face) for (const i of [0, 1]) pairs.push([driver.face[i], target.face[i], FACE_SPREAD]);
  const differences = pairs.filter(([one, other]) => one && other).map(([one, other, spread]) => Math.log((overall * one) / other) / spread);
  const same = Math.sqrt(differences.reduce((sum, value) => sum + value * value, 0) / differences.length) < SAME_BUILD;
  if (same) {
    const moved = [0, 1].map((i) => Math.abs(driver.place[i] - target.place[i]));
    if (Math.abs(overall - 1) < SAME_SCALE && moved[0] < SAME_PLACE[0] && moved[1] < SAME_PLACE[1]) return null;
  }
  const factor = (one, other) => same || !one || !other ? overall : clip(one / other, overall / FURTHEST, overall * FURTHEST);
  const result = { shoulders: overall, hand: factor(target.palm, driver.palm) };
  for (const name of ["neck", "torso", "hips", "upper_arm", "forearm"]) result[name] = factor(target[name], driver[name]);
  result.face = [0, 1].map((i) => factor(target.face?.[i], driver.face?.[i]));
  return result;
}

// Maps one frame of a motion onto the target's body: each bone keeps its direction and gets the target's length.
export function retarget({ body, face, hands }, driver, target, by, height) {
  const result = body.map((point) => [...point]), center = middle(body, SHOULDERS);
  const rest = [driver.place[0] * height, driver.place[1] * height, 0], home = [target.place[0] * height, target.place[1] * height, 0];
  const moved = plus(home, minus(center, rest), by.shoulders);
  const carry = (from, to, points, factor) => points.forEach((number) => (result[number] = plus(to, minus(body[number], from), factor)));
  carry(center, moved, SHOULDERS, by.shoulders);
  const hips = middle(body, HIPS);
  carry(hips, plus(moved, minus(hips, center), by.torso), HIPS, by.hips);
  const ears = middle(body, EARS), movedEars = plus(moved, minus(ears, center), by.neck), [across, along] = by.face;
  for (let number = 0; number <= 10; number++) {
    const [x, y, z] = minus(body[number], ears);
    result[number] = plus(movedEars, [across * x, along * y, across * z]);
  }
  const newHands = [0, 1].map((side) => {
    const bone = (start, points, factor) => carry(body[start], result[start], points, factor);
    bone(SHOULDERS[side], [ELBOWS[side]], by.upper_arm);
    bone(ELBOWS[side], [WRISTS[side]], by.forearm);
    bone(WRISTS[side], KNUCKLES[side], by.hand);
    bone(HIPS[side], LEGS[side], by.torso);
    return hands[side].map((point) => plus(result[WRISTS[side]], minus(point, body[WRISTS[side]]), by.hand));
  });
  return { body: result, face: scaledFace(face, ears, movedEars, by.face), hands: newHands };
}

function scaledFace(face, ears, movedEars, [across, along]) {
  const flat = ([x, y]) => [x, y, 0], local = face.map((point) => minus(point, flat(ears)));
  const long = (a) => Math.max(length(a), 1e-9), dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  let right = minus(local[454], local[234]), up = minus(local[10], local[152]);
  right = times(right, 1 / long(right));
  up = plus(up, right, -dot(up, right));
  up = times(up, 1 / long(up));
  return local.map((point) => plus(plus(flat(movedEars), point, across), up, (along - across) * dot(point, up)));
}
