// Clothes and hair where the pose pulls them: body/cloth.py and landmarks/proportions/cloth.py for a camera.
const CELLS = 8, CELL = 256 / CELLS, STEP = 1e-4, DRAWN = 128, SMOOTH = 3, LARGEST = 6, SURE = 1e-3;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);

// What the shift depends on; the same order as `pose_features`.
function features(body, shoulders) {
  const [left, right, ears] = [body[11], body[12], [body[7], body[8]]];
  const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], minus = (a, b) => [a[0] - b[0], a[1] - b[1]];
  const from = middle(left, right), points = [13, 14, 15, 16, 0, 23, 24].map((number) => minus(body[number], from));
  const turned = [minus(left, right), minus(...ears), minus(body[0], middle(...ears))];
  return [...points, ...turned].flat().map((value) => value / shoulders);
}

// Where a line of `count` values continues beyond its ends: mirrored, without repeating the last value.
function mirrored(i, count) {
  while (count > 1 && (i < 0 || i >= count)) i = i < 0 ? -i : 2 * (count - 1) - i;
  return count > 1 ? i : 0;
}

// A Gaussian like OpenCV's. Only the part within reach of `box` ([left, top, right, bottom], ends inclusive) is computed:
// elsewhere the values are 0.
function blurred(values, width, height, sigma, [left, top, right, bottom]) {
  const taps = Math.round(8 * sigma + 1) | 1, reach = taps >> 1;
  const kernel = Array.from({ length: taps }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((a, b) => a + b), result = new Float32Array(values.length), half = new Float32Array(values.length);
  const pass = (from, to, count, lines, step, jump, [first, last], [firstLine, lastLine]) => {
    const low = Math.max(0, first - reach), high = Math.min(count - 1, last + reach);
    const places = Array.from({ length: count + taps }, (_, i) => mirrored(i - reach, count) * step);
    for (let line = Math.max(0, firstLine); line <= Math.min(lines - 1, lastLine); line++) {
      for (let i = low; i <= high; i++) {
        let sum = 0;
        for (let k = 0; k < taps; k++) sum += kernel[k] * from[line * jump + places[i + k]];
        to[line * jump + i * step] = sum / total;
      }
    }
  };
  pass(values, half, width, height, 1, width, [left, right], [top, bottom]);
  pass(half, result, height, width, width, 1, [top, bottom], [left - reach, right + reach]);
  return result;
}

export class Cloth {
  // cloth: the person's, from the body measures; groups: of each chart, from body.json; shoulders: distance in pixels.
  constructor(cloth, groups, shoulders) {
    Object.assign(this, { cloth, shoulders, groups });
  }

  // The shift of each cell in pixels, right and down.
  table(body) {
    const { mean, scale, low, high, patterns, cells, shifts } = this.cloth;
    const standard = features(body, this.shoulders).map((value, i) => clip((value - mean[i]) / scale[i], low[i], high[i]));
    const sizes = patterns.map((row) => standard.reduce((sum, value, i) => sum + row[i + 1] * value, row[0]));
    const result = new Float32Array(2 * 256 * CELLS * CELLS);
    cells.forEach((cell, m) => {
      for (let axis = 0; axis < 2; axis++) {
        const sum = sizes.reduce((total, size, r) => total + size * shifts[m][axis * sizes.length + r], 0);
        result[2 * cell + axis] = sum * STEP * this.shoulders;
      }
    });
    return result;
  }

  // Returns the surface map of `width` x `height` pixels with clothes and hair moved.
  moved(surface, width, height, body) {
    const table = this.table(body), factor = Math.min(1, DRAWN / height), { groups } = this;
    const columns = Math.max(1, Math.round(width * factor)), rows = Math.max(1, Math.round(height * factor));
    const count = columns * rows, own = new Uint8Array(count), raw = [new Float32Array(count), new Float32Array(count)];
    const boxes = {}, sigma = (SMOOTH * rows) / DRAWN; // of each group: left, top, right, bottom
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const from = 3 * (Math.floor((y * height) / rows) * width + Math.floor((x * width) / columns)), to = y * columns + x;
        const cell = (surface[from] * CELLS + Math.floor(surface[from + 2] / CELL)) * CELLS + Math.floor(surface[from + 1] / CELL);
        own[to] = groups[surface[from]];
        if (own[to]) {
          const [left, top, right, bottom] = boxes[own[to]] ?? [x, y, x, y];
          boxes[own[to]] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
        }
        for (let axis = 0; axis < 2; axis++) raw[axis][to] = table[2 * cell + axis];
      }
    }
    const fields = {};
    for (const [group, box] of Object.entries(boxes)) {
      const inside = Float32Array.from(own, (value) => +(value === +group));
      const smooth = (values) => blurred(values, columns, rows, sigma, box), weight = smooth(inside);
      fields[group] = raw.map((values) =>
        smooth(values.map((value, i) => value * inside[i])).map((value, i) => value / Math.max(weight[i], SURE)));
    }
    // Bilinear between the centers of the pixels at which the shift is drawn.
    const at = (field, x, y) => {
      const left = clip(((x + 0.5) * columns) / width - 0.5, 0, columns - 1), top = clip(((y + 0.5) * rows) / height - 0.5, 0, rows - 1);
      const x0 = Math.floor(left), y0 = Math.floor(top), x1 = Math.min(x0 + 1, columns - 1), y1 = Math.min(y0 + 1, rows - 1);
      const across = (row) => field[row * columns + x0] + (left - x0) * (field[row * columns + x1] - field[row * columns + x0]);
      return across(y0) + (top - y0) * (across(y1) - across(y0));
    };
    const result = surface.slice(), most = (LARGEST * height) / DRAWN;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const to = 3 * (y * width + x), group = groups[surface[to]], field = group && fields[group];
        if (!field) continue;
        const [right, down] = [at(field[0], x, y), at(field[1], x, y)];
        const shorter = Math.min(1, most / Math.max(Math.hypot(right, down), SURE));
        const column = clip(Math.round(x - right * shorter), 0, width - 1), row = clip(Math.round(y - down * shorter), 0, height - 1);
        const from = 3 * (row * width + column);
        if (groups[surface[from]] === group) for (let i = 0; i < 3; i++) result[to + i] = surface[from + i];
      }
    }
    return result;
  }
}
