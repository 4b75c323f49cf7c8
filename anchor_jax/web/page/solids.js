// Rasterizes the solids: the JavaScript version of body/rasterize.py, solids.py and mesh.py, in the same coordinates.

export const EMPTY = -1e9, SUPERSAMPLE = 2;
const SMALL = 48; // sub-pixels: cones up to this size are first merged with each other, as in Python
const clip = (value, low, high) => (value < low ? low : value > high ? high : value);

// The result of a hit test. Hit functions write here, because allocating an object per pixel would dominate their time.
const hit = { depth: EMPTY, x: 0, y: 0, z: 0, along: 0 };

export class Cone {
  constructor(part, start, end, radiusStart, radiusEnd, group, blend, skin) {
    Object.assign(this, { part, start, end, radiusStart, radiusEnd, group, blend, skin });
    const [ax, ay] = start, [bx, by] = end, ra = radiusStart, rb = radiusEnd;
    this.bounds = [Math.min(ax - ra, bx - rb), Math.min(ay - ra, by - rb), Math.max(ax + ra, bx + rb), Math.max(ay + ra, by + rb)];
    this.small = Math.max(this.bounds[2] - this.bounds[0], this.bounds[3] - this.bounds[1]) * SUPERSAMPLE <= SMALL;
    this.dr = rb - ra;
    this.e = end.map((value, i) => value - start[i]);
    const [ex, ey, ez] = this.e, least = 1e-3 * ra * ra;
    this.a = this.dr * this.dr - ex * ex - ey * ey;
    this.endOn = this.a > -least;
    if (Math.abs(this.a) < least) this.a = -least;
    this.root = 0.25 / Math.max(ez * ez - this.a, 1e-9);
  }

  hit(x, y) {
    const [ex, ey, ez] = this.e, ra = this.radiusStart, dr = this.dr, a = this.a;
    const dx = x - this.start[0], dy = y - this.start[1];
    const b = dx * 2 * ex + 2 * ra * dr + dy * 2 * ey, c = ra * ra - dx * dx - dy * dy;
    let t = clip((b + Math.sqrt(Math.max(b * b - c * 4 * a, 0) * this.root) * 2 * ez) * (-0.5 / a), 0, 1);
    if (this.endOn) { // seen end-on, the maximum may lie at either cap
      let best = EMPTY;
      for (const option of [t, 0, 1]) {
        const q = (ra + option * dr) ** 2 - (dx - option * ex) ** 2 - (dy - option * ey) ** 2;
        const front = q > 0 ? Math.sqrt(q) + option * ez : EMPTY;
        if (front > best) [best, t] = [front, option];
      }
    }
    const r = t * dr + ra, nx = dx - t * ex, ny = dy - t * ey, q = r * r - nx * nx - ny * ny;
    if (q <= 0) return (hit.depth = EMPTY);
    const nz = Math.sqrt(q);
    hit.x = nx / r;
    hit.y = ny / r;
    hit.z = nz / r;
    hit.along = t;
    return (hit.depth = nz + t * ez + this.start[2]);
  }
}

// An ellipsoid; the columns of `rotation` (three rows) are its axes.
export class Ellipsoid {
  constructor(part, center, radii, rotation, group, blend, skin) {
    Object.assign(this, { part, center, group, blend, skin });
    const half = [0, 1].map((i) => Math.hypot(...radii.map((radius, j) => rotation[i][j] * radius)));
    this.bounds = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]];
    this.axes = rotation.map((row) => row.map((value, j) => value / radii[j]));
    this.m = this.axes.map((one) => this.axes.map((other) => one[0] * other[0] + one[1] * other[1] + one[2] * other[2]));
  }

  hit(x, y) {
    const { m, axes } = this, dx = x - this.center[0], dy = y - this.center[1];
    const b = dx * m[0][2] + dy * m[1][2], c = dx * dx * m[0][0] + dy * dy * m[1][1] + 2 * dx * dy * m[0][1] - 1;
    const disc = b * b - c * m[2][2];
    if (disc <= 0) return (hit.depth = EMPTY);
    const s = (Math.sqrt(disc) - b) / m[2][2];
    const u = dx * axes[0][0] + dy * axes[1][0] + s * axes[2][0];
    const v = dx * axes[0][1] + dy * axes[1][1] + s * axes[2][1];
    const w = dx * axes[0][2] + dy * axes[1][2] + s * axes[2][2];
    const gx = u * axes[0][0] + v * axes[0][1] + w * axes[0][2];
    const gy = u * axes[1][0] + v * axes[1][1] + w * axes[1][2];
    const gz = u * axes[2][0] + v * axes[2][1] + w * axes[2][2];
    const scale = 1 / Math.sqrt(gx * gx + gy * gy + gz * gz + 1e-20);
    hit.x = gx * scale;
    hit.y = gy * scale;
    hit.z = gz * scale;
    hit.along = v;
    return (hit.depth = s + this.center[2]);
  }
}

// Elliptic sections centered on the local y axis; `width` and `depth` sample it evenly from low to high.
export class Loft {
  constructor(part, origin, rotation, low, high, width, depth, group, blend, skin) {
    Object.assign(this, { part, origin, rotation, low, high, group, blend, skin });
    const wide = Math.max(...width), deep = Math.max(...depth), xs = [], ys = [];
    for (const a of [-wide, wide])
      for (const b of [low, high])
        for (const c of [-deep, deep]) {
          xs.push(rotation[0][0] * a + rotation[0][1] * b + rotation[0][2] * c + origin[0]);
          ys.push(rotation[1][0] * a + rotation[1][1] * b + rotation[1][2] * c + origin[1]);
        }
    this.bounds = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    const floor = 1e-6 * wide * wide + 1e-9, square = (table) => table.map((value) => Math.max(value * value, floor));
    const wide2 = square(width), deep2 = square(depth);
    this.pitch = (width.length - 1) / (high - low);
    this.inverseWide = wide2.map((value) => 1 / value);
    this.inverseDeep = deep2.map((value) => 1 / value);
    this.slopeWide = gradient(wide2, this.pitch);
    this.slopeDeep = gradient(deep2, this.pitch);
  }

  hit(x, y) {
    const { rotation: r, inverseWide, inverseDeep } = this, last = inverseWide.length - 1;
    const dx = x - this.origin[0], dy = y - this.origin[1];
    const ox = dx * r[0][0] + dy * r[1][0], oy = dx * r[0][1] + dy * r[1][1], oz = dx * r[0][2] + dy * r[1][2];
    const [kx, ky, kz] = r[2], tilt = Math.abs(ky);
    let s = -oz / kz, index = 0, height = 0, disc = 0;
    for (let step = tilt < 1e-3 ? 1 : tilt < 0.05 ? 2 : 6; step > 0; step--) {
      height = oy + s * ky;
      index = Math.floor(clip((height - this.low) * this.pitch + 0.5, 0, last));
      const xw = ox * inverseWide[index], zd = oz * inverseDeep[index];
      const a = kx * kx * inverseWide[index] + kz * kz * inverseDeep[index], b = xw * kx + zd * kz;
      disc = b * b - a * (xw * ox + zd * oz - 1);
      s = (Math.sqrt(Math.max(disc, 0)) - b) / a;
    }
    if (!(disc > 0 && height >= this.low && height <= this.high)) return (hit.depth = EMPTY);
    const gx = (ox + s * kx) * inverseWide[index], gz = (oz + s * kz) * inverseDeep[index];
    const gy = -0.5 * (gx * gx * this.slopeWide[index] + gz * gz * this.slopeDeep[index]);
    const scale = 1 / Math.sqrt(gx * gx + gy * gy + gz * gz + 1e-20);
    hit.x = (gx * r[0][0] + gy * r[0][1] + gz * r[0][2]) * scale;
    hit.y = (gx * r[1][0] + gy * r[1][1] + gz * r[1][2]) * scale;
    hit.z = (gx * r[2][0] + gy * r[2][1] + gz * r[2][2]) * scale;
    hit.along = height;
    return (hit.depth = s + this.origin[2]);
  }
}

function gradient(table, pitch) {
  const last = table.length - 1;
  return table.map((_, i) => {
    const before = Math.max(i - 1, 0), after = Math.min(i + 1, last);
    return ((table[after] - table[before]) / (after - before)) * pitch;
  });
}

// Triangles with smooth normals: points [x, y, z] and a flat list of corner indices.
export class Mesh {
  constructor(part, points, triangles, group, blend, skin) {
    Object.assign(this, { part, points, triangles, group, blend, skin });
    const used = [...new Set(triangles)].map((number) => points[number]);
    const xs = used.map((point) => point[0]), ys = used.map((point) => point[1]);
    this.bounds = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    this.normals = this.findNormals();
  }

  findNormals() {
    const total = this.points.map(() => [0, 0, 0]), { points, triangles } = this;
    for (let i = 0; i < triangles.length; i += 3) {
      const [a, b, c] = [points[triangles[i]], points[triangles[i + 1]], points[triangles[i + 2]]];
      const [ux, uy, uz] = [b[0] - a[0], b[1] - a[1], b[2] - a[2]], [vx, vy, vz] = [c[0] - a[0], c[1] - a[1], c[2] - a[2]];
      const z = ux * vy - uy * vx, sign = z < 0 ? -1 : 1;
      for (let corner = 0; corner < 3; corner++) {
        const sum = total[triangles[i + corner]];
        sum[0] += sign * (uy * vz - uz * vy);
        sum[1] += sign * (uz * vx - ux * vz);
        sum[2] += sign * z;
      }
    }
    return total.map((sum) => {
      const length = Math.hypot(...sum) + 1e-9;
      return sum.map((value) => value / length);
    });
  }

  // The triangle that each sub-pixel of the box shows, -1 for none; triangles are painted back to front.
  paint(x0, y0, columns, rows) {
    const { points, triangles } = this, count = triangles.length / 3, seen = new Int32Array(columns * rows).fill(-1);
    const depth = Float64Array.from({ length: count }, (_, k) =>
      points[triangles[3 * k]][2] + points[triangles[3 * k + 1]][2] + points[triangles[3 * k + 2]][2]);
    for (const number of Array.from(depth.keys()).sort((one, other) => depth[one] - depth[other])) {
      const px = [0, 0, 0], py = [0, 0, 0];
      for (let corner = 0; corner < 3; corner++) {
        const point = points[triangles[3 * number + corner]];
        px[corner] = Math.round((point[0] * SUPERSAMPLE - 0.5 - x0) * 16) / 16;
        py[corner] = Math.round((point[1] * SUPERSAMPLE - 0.5 - y0) * 16) / 16;
      }
      const area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0]), sign = area < 0 ? -1 : 1;
      const top = Math.max(Math.ceil(Math.min(...py) - 0.5), 0), bottom = Math.min(Math.floor(Math.max(...py) + 0.5), rows - 1);
      const left = Math.max(Math.ceil(Math.min(...px) - 0.5), 0), right = Math.min(Math.floor(Math.max(...px) + 0.5), columns - 1);
      for (let y = top; y <= bottom; y++) {
        for (let x = left; x <= right; x++) {
          let inside = true;
          for (let corner = 0; corner < 3 && inside; corner++) {
            const next = (corner + 1) % 3, ex = px[next] - px[corner], ey = py[next] - py[corner];
            // Includes the outline that OpenCV draws: half a sub-pixel along the axis that the edge is steeper to.
            inside = sign * (ex * (y - py[corner]) - ey * (x - px[corner])) >= -0.5 * Math.max(Math.abs(ex), Math.abs(ey));
          }
          if (inside) seen[y * columns + x] = number;
        }
      }
    }
    return seen;
  }
}

// Barycentric coordinates at (x, y), written to `shares`.
export function barycentric(points, triangles, number, x, y, shares) {
  const [ax, ay] = points[triangles[3 * number]], [bx, by] = points[triangles[3 * number + 1]];
  const [cx, cy] = points[triangles[3 * number + 2]];
  let area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  if (Math.abs(area) < 1e-6) area = 1e-6;
  const b = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area, c = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area;
  shares[0] = Math.max(1 - b - c, 0);
  shares[1] = Math.max(b, 0);
  shares[2] = Math.max(c, 0);
  const sum = shares[0] + shares[1] + shares[2];
  for (let i = 0; i < 3; i++) shares[i] /= sum;
}

// Width and height of pictures: a square's side in person.json is one number.
export const sides = (size) => (typeof size === "number" ? [size, size] : size);

// The visible surface, in sub-pixels of a picture of `size` pixels.
export class Surface {
  constructor(size) {
    [this.width, this.height] = sides(size);
    [this.columns, this.rows] = sides(size).map((side) => side * SUPERSAMPLE);
    const count = this.columns * this.rows;
    this.depth = new Float32Array(count);
    this.normal = new Float32Array(3 * count);
    this.along = new Float32Array(count);
    this.index = new Int16Array(count);
    this.group = new Int16Array(count);
    this.near = { depth: new Float32Array(count), key: new Float64Array(count), which: new Int16Array(count) };
    this.second = { depth: new Float32Array(count), key: new Float64Array(count), which: new Int16Array(count) };
  }

  draw(solids) {
    this.depth.fill(EMPTY);
    this.normal.fill(0);
    this.along.fill(0);
    this.index.fill(-1);
    this.group.fill(-1);
    this.meshes = new Map();
    for (let number = 0; number < solids.length; ) {
      let end = number;
      while (end < solids.length && solids[end].small) end++;
      if (end > number) this.drawSmall(solids, number, end);
      else this.drawOne(solids[end++], number);
      number = end;
    }
  }

  box([left, top, right, bottom]) {
    return [
      Math.max(Math.floor(left * SUPERSAMPLE), 0), Math.max(Math.floor(top * SUPERSAMPLE), 0),
      Math.min(Math.ceil(right * SUPERSAMPLE) + 1, this.columns), Math.min(Math.ceil(bottom * SUPERSAMPLE) + 1, this.rows),
    ];
  }

  drawOne(solid, number) {
    const [x0, y0, x1, y1] = this.box(solid.bounds), reach = solid.group >= 0 ? Math.max(solid.blend, 0) : 0;
    if (x0 >= x1 || y0 >= y1) return;
    const mesh = solid instanceof Mesh ? this.startMesh(solid, number, x0, y0, x1, y1) : null;
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const depth = mesh ? this.hitMesh(solid, mesh, x, y) : solid.hit((x + 0.5) / SUPERSAMPLE, (y + 0.5) / SUPERSAMPLE);
        const place = y * this.columns + x;
        if (depth > Math.max(this.depth[place] - reach, EMPTY))
          this.merge(place, depth, hit.x, hit.y, hit.z, hit.along, number, solid.group, reach);
      }
    }
  }

  startMesh(solid, number, x0, y0, x1, y1) {
    const columns = x1 - x0, mesh = { x0, y0, columns, rows: y1 - y0, seen: solid.paint(x0, y0, columns, y1 - y0) };
    mesh.depth = new Float32Array(mesh.seen.length);
    this.meshes.set(number, mesh);
    return mesh;
  }

  hitMesh(solid, mesh, x, y) {
    const place = (y - mesh.y0) * mesh.columns + x - mesh.x0, number = mesh.seen[place];
    if (number < 0) return EMPTY;
    barycentric(solid.points, solid.triangles, number, (x + 0.5) / SUPERSAMPLE, (y + 0.5) / SUPERSAMPLE, shares);
    let nx = 0, ny = 0, nz = 0, depth = 0;
    for (let corner = 0; corner < 3; corner++) {
      const point = solid.triangles[3 * number + corner], normal = solid.normals[point];
      depth += shares[corner] * solid.points[point][2];
      nx += shares[corner] * normal[0];
      ny += shares[corner] * normal[1];
      nz += shares[corner] * normal[2];
    }
    const length = Math.hypot(nx, ny, nz) + 1e-9;
    hit.x = nx / length;
    hit.y = ny / length;
    hit.z = nz / length;
    hit.along = number;
    return (mesh.depth[place] = depth);
  }

  // Draws small cones together: the two nearest at each sub-pixel blend if they share a group, then go to the buffers.
  drawSmall(solids, first, end) {
    const { near, second } = this, touched = [];
    for (let number = first; number < end; number++) {
      const [x0, y0, x1, y1] = this.box(solids[number].bounds);
      for (let y = y0; y < y1; y++) {
        for (let x = x0; x < x1; x++) {
          const depth = solids[number].hit((x + 0.5) / SUPERSAMPLE, (y + 0.5) / SUPERSAMPLE);
          if (depth === EMPTY) continue;
          const place = y * this.columns + x, key = Math.trunc(depth * 1024);
          if (near.which[place] === 0) touched.push(place);
          if (near.which[place] === 0 || key > near.key[place]) {
            for (const name of ["depth", "key", "which"]) second[name][place] = near[name][place];
            set(near, place, depth, key, number + 1);
          } else if (second.which[place] === 0 || key > second.key[place]) set(second, place, depth, key, number + 1);
        }
      }
    }
    for (const place of touched) {
      const number = near.which[place] - 1, solid = solids[number], other = solids[second.which[place] - 1];
      const x = ((place % this.columns) + 0.5) / SUPERSAMPLE, y = (Math.floor(place / this.columns) + 0.5) / SUPERSAMPLE;
      let depth = near.depth[place], share = 0, gap = 0, ox = 0, oy = 0, oz = 0;
      const blend = solid.group >= 0 ? solid.blend : 0;
      if (other) {
        gap = second.depth[place] - depth;
        if (solid.group === other.group && gap > -blend) {
          share = 0.5 + (0.5 * gap) / Math.max(blend, 1e-9);
          other.hit(x, y);
          [ox, oy, oz] = [hit.x, hit.y, hit.z];
        }
      }
      solid.hit(x, y);
      const mx = hit.x * (1 - share) + ox * share, my = hit.y * (1 - share) + oy * share, mz = hit.z * (1 - share) + oz * share;
      const length = 1 / Math.sqrt(mx * mx + my * my + mz * mz + 1e-12);
      depth += share * (gap + blend * (1 - share));
      this.merge(place, depth, mx * length, my * length, mz * length, hit.along, number, solid.group, blend);
      near.which[place] = second.which[place] = 0;
    }
  }

  // The nearer one wins; members of a group blend within `blend`.
  merge(place, depth, nx, ny, nz, along, number, group, blend) {
    const { normal } = this, old = this.depth[place], gap = depth - old, at = 3 * place;
    const melts = Math.abs(gap) < blend && this.group[place] === group;
    const [bx, by, bz] = melts ? [normal[at], normal[at + 1], normal[at + 2]] : [0, 0, 0];
    if (gap > 0) {
      this.depth[place] = depth;
      normal[at] = nx;
      normal[at + 1] = ny;
      normal[at + 2] = nz;
      this.along[place] = along;
      this.index[place] = number;
      this.group[place] = group;
    }
    if (!melts) return;
    const share = (gap * 0.5) / blend + 0.5, rest = 1 - share;
    const mx = bx * rest + nx * share, my = by * rest + ny * share, mz = bz * rest + nz * share;
    const length = 1 / Math.sqrt(mx * mx + my * my + mz * mz + 1e-12);
    this.depth[place] = old + share * gap + blend * share * rest;
    normal[at] = mx * length;
    normal[at + 1] = my * length;
    normal[at + 2] = mz * length;
  }
}

const shares = [0, 0, 0];

function set(layer, place, depth, key, which) {
  layer.depth[place] = depth;
  layer.key[place] = key;
  layer.which[place] = which;
}
