// Where on the body a drawn pixel lies: body/skins.py. Each skin's `place` returns [chart, u, v], u and v from 0 to 1.
import { SUPERSAMPLE, barycentric } from "./solids.js";

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
export const plus = (a, b, share = 1) => [a[0] + share * b[0], a[1] + share * b[1], a[2] + share * b[2]];
export const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const times = (a, factor) => [a[0] * factor, a[1] * factor, a[2] * factor];
export const unit = (a) => times(a, 1 / Math.max(Math.hypot(...a), 1e-9));
const clip = (value, low, high) => (value < low ? low : value > high ? high : value);
const turn = 2 * Math.PI, wrapped = (value) => value - Math.floor(value);

// A cone's skin: u is the angle around the axis, v the position along it.
export class Tube {
  constructor(chart, side, handed, endSide = null, span = [0, 1], limits = [0, 1]) {
    Object.assign(this, { chart, side, handed, endSide: endSide ?? side, span, limits });
  }

  // Computes what all points share; each skin belongs to one cone.
  prepare({ start, e }) {
    const length = Math.hypot(...e) + 1e-6, axis = times(e, 1 / length);
    const squareTo = (vector) => {
      const square = plus(vector, axis, -dot(axis, vector));
      return times(square, 1 / (Math.hypot(...square) + 1e-9));
    };
    this.origin = start;
    this.along = times(axis, 1 / length);
    this.sideways = squareTo(this.side);
    this.forward = times(cross(axis, this.sideways), this.handed);
    const end = squareTo(this.endSide);
    this.twist = Math.atan2(-dot(end, this.forward), dot(end, this.sideways));
  }

  place(x, y, z) {
    const d = [x - this.origin[0], y - this.origin[1], z - this.origin[2]], share = dot(d, this.along);
    const angle = Math.atan2(dot(d, this.sideways), dot(d, this.forward)) - this.twist * clip(share, 0, 1);
    const v = clip(this.span[0] + (this.span[1] - this.span[0]) * share, this.limits[0], this.limits[1]);
    return [this.chart, wrapped(0.5 + angle / turn), v];
  }
}

// Skin of a rigid part with a front and a back; `inverse` has three rows.
export class Sheet {
  constructor(origin, inverse, front, back, spread = 0.5) {
    Object.assign(this, { origin, inverse, front, back, spread });
  }

  place(x, y, z) {
    const d = [x - this.origin[0], y - this.origin[1], z - this.origin[2]];
    const [a, b, c] = this.inverse.map((row) => dot(row, d));
    const u = 0.5 + (a * (1 + this.spread * (1 - Math.min(Math.abs(c), 1))) * 0.5) / (1 + this.spread);
    const charts = c <= 0 ? this.back : this.front, scaled = b * charts.length;
    const number = clip(Math.trunc(scaled), 0, charts.length - 1);
    return [charts[number], u, scaled - number];
  }
}

// Skin by direction from a center.
export class Ball {
  constructor(origin, inverse, chart) {
    Object.assign(this, { origin, inverse, chart });
  }

  place(x, y, z) {
    const d = [x - this.origin[0], y - this.origin[1], z - this.origin[2]];
    const [a, b, c] = this.inverse.map((row) => dot(row, d));
    return [this.chart, wrapped(0.5 + Math.atan2(b, c) / turn), 0.5 + (Math.atan2(a, Math.hypot(b, c)) * 2) / turn];
  }
}

// A mesh's skin: u and v at the triangles' corners, 6 numbers per triangle.
export class MeshSkin {
  constructor(points, triangles, charts, corners) {
    Object.assign(this, { points, triangles, charts, corners, shares: [0, 0, 0] });
  }

  place(x, y, z, number) {
    const { shares, corners } = this, at = 6 * number;
    barycentric(this.points, this.triangles, number, x, y, shares);
    const u = shares[0] * corners[at] + shares[1] * corners[at + 2] + shares[2] * corners[at + 4];
    const v = shares[0] * corners[at + 1] + shares[1] * corners[at + 3] + shares[2] * corners[at + 5];
    return [this.charts[number], u, v];
  }
}

// Returns the surface map of the drawn solids, a Uint8Array of 3 per pixel, sampled at one sub-pixel near each center.
export function surfaceMap({ width, height, columns, index, depth, along }, solids) {
  const result = new Uint8Array(3 * width * height), first = SUPERSAMPLE >> 1, middle = (first + 0.5) / SUPERSAMPLE;
  for (const solid of solids) solid.skin?.prepare?.(solid);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const place = (y * SUPERSAMPLE + first) * columns + x * SUPERSAMPLE + first, skin = solids[index[place]]?.skin;
      if (!skin) continue;
      const [chart, u, v] = skin.place(x + middle, y + middle, depth[place], along[place]), to = 3 * (y * width + x);
      result[to] = chart;
      result[to + 1] = clip(u * 256, 0, 255);
      result[to + 2] = clip(v * 256, 0, 255);
    }
  }
  return result;
}
