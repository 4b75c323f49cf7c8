// Looks up the pose channels: the JavaScript version of texture/look_up/plain.py and texture/look_up/extrapolate.py.
//
// Places and weights are integers, and the few quotients are rounded to float32 like JAX's, so the channels are equal,
// byte for byte.
import { sides } from "./solids.js";

const LEVELS = 256, TEXELS = 64, CHART_TEXELS = TEXELS * TEXELS, SHARES = 2 * LEVELS / TEXELS;
const STEPS = 16; // steps per pixel of places in pictures
const LARGEST_JUMP = 4 * STEPS, FAR = 2 ** 11, JUMP_BY_AREA = 4096 / (8 * STEPS ** 2), LARGEST_STEP = 96, GUESSED_LEVELS = (8 * LEVELS / TEXELS) ** 2;
const VIEW = 4096, LEAST_QUALITY = 1 / 64;
const REACH = 1 / 16, MOST = 64, GUESS = 1 / 4;
const f = Math.fround;
// XLA turns division by a constant into multiplication by its inverse.
const SAMPLE_UNIT = f(1 / (255 * STEPS * STEPS)), COVERAGE_UNIT = f(1 / (255 * SHARES * SHARES));
const modulo = (value, by) => ((value % by) + by) % by;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);

// Rounds to the nearest integer, half to even.
function rint(value) {
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

// Divides integers and rounds to the nearest integer, half to even.
function divided(sum, by) {
  const low = Math.floor(sum / by), rest = 2 * (sum - low * by);
  return rest < by || (rest === by && low % 2 === 0) ? low : low + 1;
}

// Returns a function from a surface map (Uint8Array, 3 per pixel) to the channels (Uint8Array, reused by every call).
//
// tables: {wraps, atlas, places, pixels, frames, outlines, plate}, described by person.json. Without key frames, the
// channels are only the atlas's. `size` is a side, or width and height.
export function makeLookUp(tables, size, keyFrames, channels) {
  const [width, height] = sides(size), count = width * height, result = new Uint8Array(count * channels);
  const index = new Int32Array(4 * count), weight = new Int32Array(4 * count);
  const area = new Float32Array(count), at = new Int32Array(2 * count), quality = new Float32Array(count);
  const skin = makeNearestSkin(width, height);
  const texels = tables.wraps.length * CHART_TEXELS;

  function findCorners(surface) {
    for (let pixel = 0; pixel < count; pixel++) {
      const chart = Math.min(surface[3 * pixel], tables.wraps.length - 1);
      const column = 2 * surface[3 * pixel + 1] + 1 - SHARES / 2, row = 2 * surface[3 * pixel + 2] + 1 - SHARES / 2;
      const left = Math.floor(column / SHARES), top = Math.floor(row / SHARES);
      const right = column - left * SHARES, below = row - top * SHARES;
      for (let down = 0; down < 2; down++) {
        const start = clip(top + down, 0, TEXELS - 1) * TEXELS + chart * CHART_TEXELS;
        for (let across = 0; across < 2; across++) {
          const x = left + across, corner = (2 * down + across) * count + pixel;
          index[corner] = start + (tables.wraps[chart] ? modulo(x, TEXELS) : clip(x, 0, TEXELS - 1));
          weight[corner] = surface[3 * pixel] === 0 ? 0 : (down ? below : SHARES - below) * (across ? right : SHARES - right);
        }
      }
    }
  }

  function findAreas(surface) {
    const du = [0, 0], dv = [0, 0], found = [0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const pixel = y * width + x, chart = surface[3 * pixel];
        const periodic = tables.wraps[Math.min(chart, tables.wraps.length - 1)];
        for (let axis = 0; axis < 2; axis++) {
          du[axis] = dv[axis] = found[axis] = 0;
          for (let sign = -1; sign <= 1; sign += 2) {
            const place = axis ? y + sign : x + sign;
            if (place < 0 || place >= (axis ? height : width)) continue;
            const other = axis ? pixel + sign * width : pixel + sign;
            if (surface[3 * other] !== chart) continue;
            let u = (surface[3 * other + 1] - surface[3 * pixel + 1]) * sign;
            if (periodic) u = modulo(u + LEVELS / 2, LEVELS) - LEVELS / 2;
            const v = (surface[3 * other + 2] - surface[3 * pixel + 2]) * sign;
            if (Math.max(Math.abs(u), Math.abs(v)) > LARGEST_STEP) continue;
            du[axis] += u;
            dv[axis] += v;
            found[axis]++;
          }
        }
        const wide = Math.max(found[0], 1), high = Math.max(found[1], 1);
        let levels = f(Math.abs(du[0] * dv[1] - du[1] * dv[0]) / (wide * high));
        if (found[1] === 0) levels = f((du[0] * du[0] + dv[0] * dv[0]) / (wide * wide));
        if (found[0] === 0) levels = f((du[1] * du[1] + dv[1] * dv[1]) / (high * high));
        if (found[0] === 0 && found[1] === 0) levels = GUESSED_LEVELS;
        area[pixel] = Math.max(levels, 1) / (LEVELS / TEXELS) ** 2;
      }
    }
  }

  function fromAtlas() {
    for (let pixel = 0; pixel < count; pixel++) {
      let coverage = 0, red = 0, green = 0, blue = 0;
      for (let corner = pixel; corner < 4 * count; corner += count) {
        const texel = 4 * index[corner], share = weight[corner] * tables.atlas[texel + 3];
        coverage += share;
        red += share * tables.atlas[texel];
        green += share * tables.atlas[texel + 1];
        blue += share * tables.atlas[texel + 2];
      }
      const by = f(255 * Math.max(coverage, 1)), to = pixel * channels;
      result[to] = rint(f(f(red / by) * 255));
      result[to + 1] = rint(f(f(green / by) * 255));
      result[to + 2] = rint(f(f(blue / by) * 255));
      result[to + 3] = rint(f(f(coverage * COVERAGE_UNIT) * 255));
    }
  }

  function fromKeyFrame(number) {
    const x = new Array(4), y = new Array(4), spent = new Array(4), share = new Array(4);
    for (let pixel = 0; pixel < count; pixel++) {
      let most = -1, heaviest = 0;
      for (let corner = 0; corner < 4; corner++) {
        const texel = number * texels + index[corner * count + pixel];
        x[corner] = tables.places[2 * texel];
        y[corner] = tables.places[2 * texel + 1];
        spent[corner] = tables.pixels[texel];
        share[corner] = spent[corner] > 0 ? weight[corner * count + pixel] : 0;
        if (share[corner] > most) {
          most = share[corner];
          heaviest = corner;
        }
      }
      let total = 0, sumX = 0, sumY = 0, seen = 0;
      for (let corner = 0; corner < 4; corner++) {
        const away = Math.min(Math.max(Math.abs(x[corner] - x[heaviest]), Math.abs(y[corner] - y[heaviest])), FAR);
        if (away > LARGEST_JUMP && JUMP_BY_AREA * away * away > spent[heaviest]) continue;
        total += share[corner];
        sumX += share[corner] * x[corner];
        sumY += share[corner] * y[corner];
        seen += share[corner] * spent[corner];
      }
      at[2 * pixel] = divided(sumX, Math.max(total, 1));
      at[2 * pixel + 1] = divided(sumY, Math.max(total, 1));
      const view = Math.min(f(f(seen * area[pixel]) / (VIEW * SHARES * SHARES)), 1);
      quality[pixel] = view >= LEAST_QUALITY ? view : 0;
    }
    const outline = number * count * 3, picture = number * count * 3;
    for (let pixel = 0; pixel < count; pixel++) {
      let placeX = at[2 * pixel], placeY = at[2 * pixel + 1], view = quality[pixel];
      if (skin.share[pixel] > 0) {
        const from = skin.place[pixel], its = quality[from];
        view = 0;
        const source = inPicture(at[2 * from], at[2 * from + 1]);
        const wayX = tables.outlines[outline + 3 * source.number], wayY = tables.outlines[outline + 3 * source.number + 1];
        placeX = at[2 * from] + STEPS * wayX + skin.beyond[2 * pixel];
        placeY = at[2 * from + 1] + STEPS * wayY + skin.beyond[2 * pixel + 1];
        if (its > 0 && source.inside && tables.outlines[outline + 3 * source.number + 2] >= 0) {
          const target = inPicture(placeX, placeY);
          const sameSide = wayX * skin.beyond[2 * pixel] + wayY * skin.beyond[2 * pixel + 1] >= 0;
          if (target.inside && tables.outlines[outline + 3 * target.number + 2] === 1 && sameSide)
            view = f(skin.share[pixel] * f(1 + its));
        }
      }
      const to = pixel * channels + 4 + 4 * number;
      if (view > 0) sample(picture, placeX, placeY, to);
      else result[to] = result[to + 1] = result[to + 2] = 0;
      result[to + 3] = rint(f(view * 255));
    }
  }

  const spot = { number: 0, inside: false };
  function inPicture(placeX, placeY) {
    const x = Math.floor((placeX + STEPS / 2) / STEPS), y = Math.floor((placeY + STEPS / 2) / STEPS);
    spot.inside = x >= 0 && x < width && y >= 0 && y < height;
    spot.number = clip(y, 0, height - 1) * width + clip(x, 0, width - 1);
    return { number: spot.number, inside: spot.inside };
  }

  function sample(picture, placeX, placeY, to) {
    const left = Math.floor(placeX / STEPS), top = Math.floor(placeY / STEPS);
    const right = placeX - left * STEPS, below = placeY - top * STEPS;
    const columns = [clip(left, 0, width - 1), clip(left + 1, 0, width - 1)];
    const rows = [clip(top, 0, height - 1), clip(top + 1, 0, height - 1)];
    for (let i = 0; i < 3; i++) {
      const value = (row, column) => tables.frames[picture + 3 * (rows[row] * width + columns[column]) + i];
      const total = (STEPS - below) * ((STEPS - right) * value(0, 0) + right * value(0, 1)) +
        below * ((STEPS - right) * value(1, 0) + right * value(1, 1));
      result[to + i] = rint(f(f(total * SAMPLE_UNIT) * 255));
    }
  }

  return (surface) => {
    findCorners(surface);
    fromAtlas();
    if (channels === 4) return result;
    findAreas(surface);
    skin.find(surface);
    for (let number = 0; number < keyFrames; number++) fromKeyFrame(number);
    for (let pixel = 0; pixel < count; pixel++)
      for (let i = 0; i < 4; i++)
        result[(pixel + 1) * channels - 4 + i] = tables.plate[4 * pixel + 3] > 0 ? tables.plate[4 * pixel + i] : 0;
    return result;
  };
}

// Finds the nearest surface pixel for every pixel, up to 1/16 of the height away: `nearest_skin` in texture/look_up/extrapolate.py.
function makeNearestSkin(width, height) {
  const reach = Math.max(1, Math.min(rint(height * REACH), MOST)), side = 2 * reach + 1, far = reach + 1;
  const square = side * side, none = 2 * far * far * square, count = width * height;
  const away = new Int32Array(square), beyondOf = new Int32Array(2 * square), shareOf = new Float32Array(square);
  for (let step = 0; step < square; step++) {
    const y = reach - Math.floor(step / side), x = reach - (step % side), distance = Math.hypot(x, y);
    const outside = 1 - 1 / Math.max(distance, 1);
    away[step] = -y * width - x;
    beyondOf[2 * step] = rint(STEPS * outside * x);
    beyondOf[2 * step + 1] = rint(STEPS * outside * y);
    const share = distance > 0 && distance <= reach ? (reach + 1 - distance) / reach : 0;
    shareOf[step] = GUESS / 2 * Math.min(share, 1);
  }
  const keys = new Int32Array(count), place = new Int32Array(count);
  const beyond = new Int32Array(2 * count), share = new Float32Array(count);

  function find(surface) {
    for (let y = 0; y < height; y++) {
      // The nearest in the row, the left one in a tie: from the last one on the left and the next one on the right.
      let last = -2 * width - far;
      for (let x = 0; x < width; x++) {
        if (surface[3 * (y * width + x)] > 0) last = x;
        keys[y * width + x] = x - last <= reach ? last - x : far;
      }
      let next = 3 * width + far;
      for (let x = width - 1; x >= 0; x--) {
        const pixel = y * width + x;
        if (surface[3 * pixel] > 0) next = x;
        if (next - x <= reach && next - x < Math.abs(keys[pixel])) keys[pixel] = next - x;
      }
      for (let pixel = y * width; pixel < (y + 1) * width; pixel++)
        keys[pixel] = keys[pixel] === far ? none : keys[pixel] * keys[pixel] * square + keys[pixel] + reach;
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const pixel = y * width + x;
        let best = none;
        for (let down = Math.max(-reach, -y); down <= Math.min(reach, height - 1 - y); down++) {
          const key = keys[pixel + down * width] + down * down * square + (down + reach) * side;
          if (key < best) best = key;
        }
        const step = best < (reach * reach + 1) * square ? best % square : (square - 1) / 2;
        place[pixel] = pixel + away[step];
        beyond[2 * pixel] = beyondOf[2 * step];
        beyond[2 * pixel + 1] = beyondOf[2 * step + 1];
        share[pixel] = shareOf[step];
      }
    }
  }

  return { find, place, beyond, share };
}
