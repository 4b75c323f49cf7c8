// Lights the drawn solids: `shade_pose` and `occlusion` in body/shading.py.
import { SUPERSAMPLE } from "./solids.js";

const COLOR = [0.8, 0.78, 0.9].map((value) => value * 255);

// Returns the pose render, a Uint8Array of 3 per pixel; `lines` scales the light of each sub-pixel, or is null.
export function shadePose(surface, lines) {
  const { columns, rows, width, height, normal, index } = surface, shadow = occlusion(surface, height / 32);
  const result = new Uint8Array(3 * width * height), sums = new Float32Array(3 * width * height);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const place = y * columns + x;
      if (index[place] < 0) continue;
      let nx = normal[3 * place], ny = normal[3 * place + 1], nz = normal[3 * place + 2];
      const length = Math.max(Math.hypot(nx, ny, nz), 1e-6);
      nx /= length;
      ny /= length;
      nz /= length;
      let light = 0.16 + 0.62 * Math.max(-0.45 * nx - 0.55 * ny + 0.7 * nz, 0) + 0.22 * nz;
      light += 0.12 * Math.max(0.8 * nx + 0.3 * nz, 0) + 0.1 * (-0.24 * nx - 0.3 * ny + 0.92 * nz) ** 16;
      light *= (1 - 0.62 * shadow[place]) * (lines ? lines[place] : 1);
      const to = 3 * ((y >> 1) * width + (x >> 1));
      for (let i = 0; i < 3; i++) sums[to + i] += Math.floor(Math.min(Math.max(light * COLOR[i], 0), 255));
    }
  }
  for (let i = 0; i < result.length; i++) result[i] = roundEven(sums[i] / SUPERSAMPLE ** 2);
  return result;
}

function roundEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

// How much of each sub-pixel's surroundings lies in front of it, 0 to 1. Computed per pixel (two sub-pixels each way) and
// interpolated linearly.
function occlusion({ columns, rows, width, height, depth, index }, radius) {
  const mask = new Float32Array(width * height), deep = new Float32Array(width * height);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (index[y * columns + x] < 0) continue;
      const to = (y >> 1) * width + (x >> 1);
      mask[to] += 0.25;
      deep[to] += depth[y * columns + x] / 4;
    }
  }
  let total = new Float32Array(width * height);
  for (const share of [1, 0.4]) {
    const wide = Math.max(Math.floor((radius * share * SUPERSAMPLE) / 2) * 2 + 1, 3);
    const weight = blur(mask, width, height, wide), mean = blur(deep, width, height, wide);
    for (let i = 0; i < total.length; i++) {
      const center = deep[i] / Math.max(mask[i], 1e-3);
      const rise = Math.max(mean[i] / Math.max(weight[i], 1e-3) - center, 0) / (radius * share);
      total[i] += (0.5 * weight[i] * rise) / (rise + 0.7);
    }
  }
  total = blur(total, width, height, 3);
  const result = new Float32Array(columns * rows);
  const clip = (value, count) => Math.min(Math.max(value, 0), count - 1);
  for (let y = 0; y < rows; y++) {
    const top = (y >> 1) - 1 + (y & 1), below = y & 1 ? 0.25 : 0.75;
    const row = clip(top, height) * width, next = clip(top + 1, height) * width;
    for (let x = 0; x < columns; x++) {
      const left = (x >> 1) - 1 + (x & 1), right = x & 1 ? 0.25 : 0.75, a = clip(left, width), b = clip(left + 1, width);
      result[y * columns + x] = (1 - below) * ((1 - right) * total[row + a] + right * total[row + b]) +
        below * ((1 - right) * total[next + a] + right * total[next + b]);
    }
  }
  return result;
}

// The mean over squares of `wide` pixels, mirrored at the edges.
function blur(values, width, height, wide) {
  const half = wide >> 1, across = new Float32Array(values.length), result = new Float32Array(values.length);
  const mirror = (place, count) => (place < 0 ? -place : place >= count ? 2 * count - 2 - place : place);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let step = -half; step <= half; step++) sum += values[y * width + mirror(x + step, width)];
      across[y * width + x] = sum / wide;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let step = -half; step <= half; step++) sum += across[mirror(y + step, height) * width + x];
      result[y * width + x] = sum / wide;
    }
  }
  return result;
}
