// Arms that the camera does not show are at rest: landmarks/shown.py, rest.py and placing.py for a camera.
import { minus, plus, times } from "./skins.js";

const ARMS = [[11, 13, 15, [17, 19, 21]], [12, 14, 16, [18, 20, 22]]]; // shoulder, elbow, wrist, knuckles
const SURE = 0.3; // of a joint that counts as shown
const HOLD = 0.4, FADE = 0.4, BLINK = 0.2; // seconds: longest gap, way to the rest pose and back, shortest appearance
const EDGE = 0.02; // of the picture's height
// A hanging left arm in shoulder widths, for people of earlier versions: elbow, wrist, three knuckles.
const HANGING = [[0.126, 0.891, 0.09], [0.015, 0.75, 0.075], [0.02, 0.24, 0], [-0.05, 0.24, 0], [-0.1, 0.13, 0]];
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const ease = (share) => share * share * (3 - 2 * share);

export class Arms {
  constructor() {
    Object.assign(this, { seconds: null, joints: null, last: null });
  }

  // Looks at a picture; `found` as in `Tracker.follow`, with the body as last shown where an arm is hidden.
  look(found, hands, width, height, seconds) {
    const shown = this.shown(found, hands, width, height), passed = this.seconds === null ? 0 : seconds - this.seconds;
    if (!this.joints) this.joints = shown.map((pair) => pair.map((now) => ({ share: now ? 1 : 0, since: -9, last: now ? seconds : -9 })));
    const gap = Math.max(HOLD, 1.5 * passed); // one picture may always be missed, however slowly they come
    this.joints.forEach((pair, side) => pair.forEach((joint, which) => {
      if (shown[side][which]) {
        if (seconds - joint.last > gap) joint.since = seconds;
        joint.last = seconds;
      }
      const counts = seconds - joint.last <= gap && joint.last - joint.since >= BLINK;
      joint.share = clip(joint.share + (counts ? passed : -passed) / FADE, 0, 1);
    }));
    this.seconds = seconds;
    if (!found.body) return null;
    const body = found.body.map((point) => [...point]);
    if (this.last) ARMS.forEach(([shoulder, elbow, wrist, knuckles], side) => {
      const [of_elbow, of_wrist] = shown[side], hidden = of_wrist ? [] : [wrist, ...knuckles];
      if (!of_elbow && !of_wrist) hidden.push(elbow);
      for (const point of hidden) body[point] = plus(this.last[point], minus(body[shoulder], this.last[shoulder]));
    });
    return (this.last = body);
  }

  // Whether elbow and wrist of the left and the right arm are shown.
  shown({ body, visible }, hands, width, height) {
    const inside = (number, edge) => {
      const [x, y] = body[number];
      return x >= edge && y >= edge && x < width - edge && y < height - edge && (visible?.[number] ?? 1) >= SURE;
    };
    return ARMS.map(([, elbow, wrist], side) => (body ? [inside(elbow, 0), hands[side] || inside(wrist, EDGE * height)] : [false, false]));
  }

  // The points with hidden arms in the rest pose of `measures`, in a picture of this height.
  place({ body, hands, ...others }, measures, height, relaxed) {
    const unit = measures.shoulders * height, placed = [...body], turned = clip((body[11][0] - body[12][0]) / unit, -1, 1);
    const both = hands.map((hand, side) => {
      const [shoulder, elbow, wrist, knuckles] = ARMS[side], [one, other] = this.joints[side].map((joint) => ease(joint.share));
      const of_elbow = Math.max(one, other), of_wrist = other;
      if (of_elbow === 1 && of_wrist === 1) return hand;
      const bones = (measures.rest?.[["left", "right"][side]] ?? HANGING.map(([x, y, z]) => [side ? -x : x, y, z]))
        .map(([x, y, z]) => times([x * turned, y, z], unit));
      const bone = (start, end, resting, weight) => {
        const seen = minus(body[end], body[start]);
        placed[end] = plus(placed[start], plus(resting, minus(seen, resting), weight));
      };
      bone(shoulder, elbow, bones[0], of_elbow);
      bone(elbow, wrist, bones[1], of_wrist);
      knuckles.forEach((knuckle, i) => bone(wrist, knuckle, bones[2 + i], of_wrist));
      const still = relaxed(placed, side, measures.palm * height);
      return hand.map((point, i) => {
        const held = plus(placed[wrist], minus(point, body[wrist]));
        return plus(still[i], minus(held, still[i]), of_wrist);
      });
    });
    return { body: placed, hands: both, ...others };
  }
}
