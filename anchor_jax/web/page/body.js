// Builds a person's solids from landmarks: the JavaScript version of body/pose.py and body/part_skins.py.
import { Cloth } from "./cloth.js";
import { Cone, Ellipsoid, Loft, Mesh, SUPERSAMPLE, Surface } from "./solids.js";
import { shadePose } from "./shade.js";
import { Ball, MeshSkin, Sheet, Tube, cross, dot, minus, plus, surfaceMap, times, unit } from "./skins.js";

const SHOULDERS = [11, 12], ELBOWS = [13, 14], WRISTS = [15, 16], HIPS = [23, 24];
const TORSO = 0, HEAD = 1, FACE = 2, ARM = 3, HAND = 4, MIDDLE = 0; // parts; the group of body and head
const SHOULDER_METERS = 0.36, FINGERS = ["index", "middle", "ring", "little"];
const THICK = [0.0106, 0.0108, 0.0104, 0.0092], THUMB_AXIS = [0.4, -0.35, 0.8];
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const transposed = (rows) => [0, 1, 2].map((i) => rows.map((row) => row[i]));
const mean = (points) => times(points.reduce((sum, point) => plus(sum, point), [0, 0, 0]), 1 / points.length);

function interpolate(x, xs, ys) {
  if (x <= xs[0]) return ys[0];
  let i = 1;
  while (i < xs.length - 1 && x > xs[i]) i++;
  return x >= xs[i] ? ys[i] : ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1]);
}

// Smooths a table with a Hann window of 35 samples, repeating its ends.
function blurred(table) {
  const kernel = Array.from({ length: 35 }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / 34));
  const total = kernel.reduce((a, b) => a + b), last = table.length - 1;
  return table.map((_, i) => kernel.reduce((sum, share, k) => sum + (share / total) * table[clip(i + k - 17, 0, last)], 0));
}

export class PoseRenderer {
  // body: the content of body.json (charts, torso heights, finger joints, face mesh); measures: the person's body measures,
  // as shares of the height of `size`.
  constructor(body, size, measures) {
    Object.assign(this, { body, widths: measures.widths ?? body.widths, surface: new Surface(size) });
    const { height, columns, rows } = this.surface;
    this.shoulders = measures.shoulders * height;
    this.hips = measures.hips * height;
    this.unit = this.shoulders / SHOULDER_METERS;
    this.hand = clip((measures.palm * height) / 0.09, 0.8 * this.unit, 1.4 * this.unit);
    this.cloth = measures.cloth ? new Cloth(measures.cloth, body.groups, this.shoulders) : null;
    this.canvas = new OffscreenCanvas(columns, rows).getContext("2d", { willReadFrequently: true });
  }

  chart(name, side) {
    return this.body.charts[side ? `${side}_${name}` : name];
  }

  // Returns {pose, surface}, Uint8Arrays of 3 per pixel. body [33][3], face [468 or 478][3], hands [2][21][3], in pixels.
  render(landmarks) {
    const { surface } = this, solids = [...this.torso(landmarks), ...this.head(landmarks), ...this.arms(landmarks)];
    surface.draw(solids);
    const pose = shadePose(surface, this.faceLines(landmarks.face, solids));
    this.uncover(solids);
    const map = surfaceMap(surface, solids), { width, height } = surface;
    return { pose, surface: this.cloth?.moved(map, width, height, landmarks.body) ?? map };
  }

  flat(point, body) {
    return [point[0], point[1], 0.5 * (point[2] - (body[SHOULDERS[0]][2] + body[SHOULDERS[1]][2]) / 2)];
  }

  // Three rows, whose columns point to the picture's right, up, and out of the chest.
  torsoAxes(body) {
    const [left, right] = SHOULDERS.map((number) => this.flat(body[number], body));
    const hips = times(plus(body[HIPS[0]], body[HIPS[1]]), 0.5), shoulders = times(plus(left, right), 0.5);
    let up = [shoulders[0] - hips[0], shoulders[1] - hips[1], 0];
    up = times(up, 1 / Math.max(Math.hypot(...up), 1e-6));
    const angle = clip(Math.atan2(right[2] - left[2], Math.abs(left[0] - right[0]) + 1e-6), -0.9, 0.9);
    const side = [-up[1], up[0], 0], forward = [0, 0, 1], c = Math.cos(angle), s = Math.sin(angle);
    return transposed([plus(times(side, c), forward, -s), up, plus(times(side, s), forward, c)]);
  }

  torso({ body }) {
    const { unit: u, widths } = this, axes = this.torsoAxes(body), up = axes.map((row) => row[1]);
    const joints = SHOULDERS.map((number) => this.flat(body[number], body)), shoulders = times(plus(...joints), 0.5);
    const middle = plus(shoulders, up, 0.04 * u), half = this.shoulders / 2 / 0.93;
    const waist = Math.max(this.hips / 2 + 0.07 * u, 0.78 * half), count = 384;
    const y = Array.from({ length: count }, (_, i) => -0.95 + (1.08 * i) / (count - 1));
    const heights = [-0.95, -0.55, -0.4, -0.26, -0.14, -0.05, -0.012, 0.012, 0.034, 0.055, 0.075, 0.13];
    const wide = [waist * 1.08, waist * 1.08, waist, 0.5 * (waist + half), half * 0.93, half * 0.92, half * 0.8, half * 0.58,
      half * 0.38, 0.05 * u, 0.044 * u, 0.036 * u]
      .map((value, i) => value * interpolate(heights[i], this.body.torso_heights, widths.torso));
    const deep = [0.125, 0.12, 0.115, 0.115, 0.112, 0.1, 0.085, 0.074, 0.062, 0.05, 0.044, 0.036].map((value) => value * u);
    const [width, depth] = [wide, deep].map((table) => blurred(y.map((at) => interpolate(at, heights, table))));
    const skin = this.torsoSkin(middle, axes, half * Math.max(1, ...widths.torso.slice(0, -2)));
    const loft = new Loft(TORSO, middle, axes, -0.95 * u, 0.13 * u, width, depth, MIDDLE, 0.055 * u, skin);
    const slopes = joints.map((shoulder) => {
      const inner = plus(plus(middle, minus(shoulder, shoulders), 0.45), up, 0.01 * u);
      const thick = [0.04 * widths.slope * u, 0.056 * widths.shoulder * u];
      return new Cone(TORSO, inner, shoulder, ...thick, MIDDLE, 0.055 * u, skin);
    });
    return [loft, ...slopes];
  }

  torsoSkin(middle, axes, halfShoulder) {
    const scales = [1.25 * halfShoulder, 0.99 * this.unit, 0.112 * this.unit];
    const origin = plus(middle, axes.map((row) => row[1]), -0.89 * this.unit);
    const inverse = transposed(axes).map((row, i) => times(row, 1 / scales[i]));
    const front = ["hips", "belly", "chest"].map((name) => this.chart(name));
    return new Sheet(origin, inverse, front, [this.chart("torso_back")]);
  }

  arms(landmarks) {
    return [0, 1].flatMap((side) => this.arm(landmarks, side));
  }

  arm({ body, hands }, side) {
    const { unit: u, widths } = this, group = 1 + side, own = side ? "right" : "left", handed = side ? -1 : 1;
    const rest = (body[SHOULDERS[0]][2] + body[SHOULDERS[1]][2]) / 2, shoulder = this.flat(body[SHOULDERS[side]], body);
    const elbow = [...body[ELBOWS[side]]];
    elbow[2] = clip(0.6 * (elbow[2] - rest), -0.1 * u, 0.2 * u);
    const reach = clip(0.35 * (body[WRISTS[side]][2] - rest), 0, 0.25 * u), lift = 0.24 * u + reach - hands[side][0][2];
    const hand = hands[side].map((point) => [point[0], point[1], point[2] + lift]), wrist = hand[0];
    const across = times(minus(hand[5], hand[17]), 0.045 / 0.057);
    const along = times(plus(minus(hand[9], hand[0]), across, -0.22), 1 / 0.93);
    const palm = palmNormal(side, across, along), hinge = elbowAxis(side, shoulder, elbow, wrist, u);
    const upper = 0.057 * widths.shoulder * u, middle = 0.044 * widths.elbow * u, lower = 0.0265 * widths.wrist * u;
    const upperSkin = new Tube(this.chart("upper_arm", own), hinge, handed);
    const foreSkin = new Tube(this.chart("forearm", own), hinge, handed, palm);
    return [
      new Cone(ARM, shoulder, elbow, upper, middle, MIDDLE, 0.02 * u, upperSkin),
      new Cone(ARM, elbow, wrist, middle, lower, group, 0.012 * u, foreSkin),
      ...this.fingers(side, own, hand, across, along),
    ];
  }

  fingers(side, own, hand, across, along) {
    const u = this.hand * this.widths.fingers, group = 1 + side, blend = 0.0045 * u, wrist = hand[0];
    const skin = this.handSkin(side, own, wrist, across, along, 0.015 * u), cones = [];
    const cone = (start, end, first, last, skin, melt = blend) =>
      cones.push(new Cone(HAND, start, end, first * u, last * u, group, melt, skin));
    cone(wrist, plus(wrist, minus(hand[9], wrist), 0.25), 0.0235, 0.021, skin, 0.012 * u);
    FINGERS.forEach((finger, number) => {
      const joints = [5, 6, 7, 8].map((joint) => hand[joint + 4 * number]), bones = this.fingerSkins(own, finger, across);
      let thick = THICK[number];
      cone(plus(wrist, minus(joints[0], wrist), 0.28), joints[0], 0.0165, thick * 1.2, skin);
      bones.forEach((bone, i) => {
        cone(joints[i], joints[i + 1], thick, thick * 0.92, bone);
        thick *= 0.92;
      });
    });
    const axes = [unit(across), unit(along), palmNormal(side, across, along)];
    const bend = axes.reduce((sum, axis, i) => plus(sum, axis, THUMB_AXIS[i]), [0, 0, 0]);
    const sizes = [[0.0165, 0.0135], [0.0125, 0.011], [0.011, 0.0095]];
    this.fingerSkins(own, "thumb", bend).forEach((bone, i) => cone(hand[i + 1], hand[i + 2], ...sizes[i], bone));
    for (const [a, b] of [[5, 9], [9, 13], [13, 17], [2, 5]]) { // the skin between the knuckles
      const [from, to] = [a, b].map((joint) => plus(times(hand[joint], 0.9), wrist, 0.1));
      cone(from, to, 0.0105, 0.0105, skin);
    }
    return cones;
  }

  fingerSkins(own, finger, thumbwards) {
    const joints = finger === "thumb" ? this.body.thumb_joints : this.body.finger_joints;
    const chart = this.chart(finger, own), handed = own === "left" ? -1 : 1;
    return [0, 1, 2].map((bone) => {
      const span = [joints[bone], joints[bone + 1]];
      return new Tube(chart, thumbwards, handed, null, span, [span[0], bone === 2 ? 1 : span[1]]);
    });
  }

  handSkin(side, own, wrist, across, along, thick) {
    const normal = palmNormal(side, across, along), u = cross(along, normal), v = cross(normal, across);
    const exact = dot(u, across), area = Math.abs(exact) > 1e-6 ? exact : 1e-6;
    const inverse = [times(u, 1 / area), times(v, 1 / (1.2 * area)), times(normal, 1 / thick)];
    return new Sheet(plus(wrist, along, -0.15), inverse, [this.chart("palm", own)], [this.chart("hand_back", own)]);
  }

  head({ body, face }) {
    const { unit: u, widths } = this, torso = this.torsoAxes(body);
    const base = times(plus(...SHOULDERS.map((number) => this.flat(body[number], body))), 0.5);
    const [right, left, top, chin] = [234, 454, 10, 152].map((number) => face[number]);
    const across = minus(left, right), up = minus(top, chin), half = Math.hypot(...across) / 2, tall = Math.hypot(...up);
    const x = times(across, 1 / (2 * half)), square = plus(up, x, -dot(up, x)), y = times(square, 1 / Math.hypot(...square));
    const crossed = cross([x[0], -x[1], x[2]], [y[0], -y[1], y[2]]), z = [crossed[0], -crossed[1], crossed[2]];
    const axes = transposed([x, y, z]), ears = times(plus(left, right), 0.5), shift = [0, 0, 0.035 * u - ears[2]];
    const place = (a, b, c) =>
      [x, y, z].reduce((sum, axis, i) => plus(sum, axis, [a * half, b * tall, c * half][i]), plus(ears, shift));
    const eyeLine = dot(minus(times(plus(face[33], face[263]), 0.5), ears), y) / tall;
    const { mesh } = this.body, points = face.map((point) => plus(point, shift));
    mesh.holes.forEach((ring, i) => points.push(plus(mean(ring.map((number) => points[number])), z, mesh.rise[i] * half)));
    const faceSkin = new MeshSkin(points, mesh.triangles, mesh.charts, this.meshCorners(points, face.length, y));
    const forehead = clip(dot(minus(face[10], ears), z) / half, 0.4, 1.2) - 0.8 * 1.3;
    const crown = place(0, eyeLine + 0.11, forehead);
    const skull = [1.06 * widths.skull[0] * half, 0.55 * widths.skull[1] * tall, 1.3 * half];
    const ballOf = (center, radii, chart) => new Ball(center, [x, y, z].map((row, i) => times(row, 1 / radii[i])), chart);
    const skin = ballOf(crown, skull, this.chart("cranium"));
    const solids = [
      new Ellipsoid(HEAD, crown, skull, axes, MIDDLE, 0.03 * u, skin),
      new Ellipsoid(HEAD, place(0, eyeLine - 0.2, 0.1), [0.86 * widths.jaw * half, 0.44 * tall, 0.62 * half], axes, MIDDLE,
        0.03 * u, skin),
      new Mesh(FACE, points, mesh.triangles, MIDDLE, 0.015 * u, faceSkin),
    ];
    const radii = [0.09 * half, 0.17 * tall, 0.16 * half];
    for (const [sign, side] of [[-1, "right"], [1, "left"]]) {
      const ear = place(sign * 1.02, eyeLine - 0.08, -0.15);
      solids.push(new Ellipsoid(HEAD, ear, radii, axes, MIDDLE, 0.01 * u, ballOf(ear, radii, this.chart("ear", side))));
    }
    if (widths.hair) {
      const [wide, down] = widths.hair, size = [wide * half, (0.45 + down / 2) * tall, 0.8 * half];
      solids.push(new Ellipsoid(HEAD, place(0, eyeLine + 0.11 - down / 2, -0.5), size, axes, MIDDLE, 0.03 * u, skin));
    }
    const neck = new Tube(this.chart("neck"), torso.map((row) => row[0]), 1, x), nape = place(0, eyeLine - 0.3, -0.25);
    const thick = [0.058 * widths.neck * u, 0.054 * widths.neck * u];
    return [...solids, new Cone(HEAD, plus(base, [0, 0, -0.012 * u]), nape, ...thick, MIDDLE, 0.03 * u, neck)];
  }

  // u and v at the mesh's corners; the eyeballs follow the gaze.
  meshCorners(points, count, up) {
    const { mesh } = this.body, corners = Float32Array.from(mesh.corners);
    mesh.eyes.forEach((eye, number) => {
      const iris = mesh.irises[number], chart = this.chart("eye", number ? "left" : "right");
      const half = [0, 1].map((i) => (points[eye[0]][i] - points[eye[8]][i]) / 2);
      let square = [half[1], -half[0]];
      if (square[0] * up[0] + square[1] * up[1] <= 0) square = [-square[0], -square[1]];
      const middle = count > iris ? points[iris] : mean(eye.map((point) => points[point]));
      const by = Math.max(half[0] ** 2 + half[1] ** 2, 1e-6);
      mesh.charts.forEach((of, triangle) => {
        if (of !== chart) return;
        for (let corner = 0; corner < 3; corner++) {
          const point = points[mesh.triangles[3 * triangle + corner]];
          const away = [(point[0] - middle[0]) / by, (point[1] - middle[1]) / by], at = 6 * triangle + 2 * corner;
          corners[at] = (away[0] * half[0] + away[1] * half[1]) * 0.3 + 0.5;
          corners[at + 1] = (away[0] * square[0] + away[1] * square[1]) * 0.45 + 0.5;
        }
      });
    });
    return corners;
  }

  // Light factors for each sub-pixel that darken eyelids, mouth and brows, which the geometry is too coarse to show.
  faceLines(face, solids) {
    const { canvas, body } = this, { mesh } = body, { columns, rows } = this.surface;
    const width = Math.hypot(face[454][0] - face[234][0], face[454][1] - face[234][1]) * SUPERSAMPLE;
    const thick = Math.max(1, Math.round(width / 60)), { index } = this.surface;
    canvas.globalCompositeOperation = "source-over";
    canvas.fillStyle = "#000";
    canvas.fillRect(0, 0, columns, rows);
    canvas.globalCompositeOperation = "lighten";
    canvas.lineCap = canvas.lineJoin = "round";
    const path = (ring, closed, strength, line) => {
      const gray = Math.round(255 * strength);
      canvas.strokeStyle = canvas.fillStyle = `rgb(${gray} ${gray} ${gray})`;
      canvas.beginPath();
      ring.forEach((number) => canvas.lineTo(face[number][0] * SUPERSAMPLE, face[number][1] * SUPERSAMPLE));
      if (closed) canvas.closePath();
      if (line) {
        canvas.lineWidth = line;
        canvas.stroke();
      } else canvas.fill();
    };
    for (const brow of mesh.brows) path(brow, false, 0.18, thick + 1);
    for (const eye of mesh.eyes) {
      path(eye, true, 0.2, thick);
      path(eye.slice(0, 9), false, 0.45, thick);
    }
    path(mesh.lips, true, 0.14);
    path(mesh.mouth, true, 0.4, thick);
    path(mesh.mouth, true, 0.72);
    const dark = canvas.getImageData(0, 0, columns, rows).data, lines = new Float32Array(columns * rows).fill(1);
    const shares = [0.16601, 0.66798, 0.16601]; // a Gaussian of 0.6 sub-pixels
    const xs = face.map((point) => point[0] * SUPERSAMPLE), ys = face.map((point) => point[1] * SUPERSAMPLE);
    const bound = (value, count) => clip(Math.round(value), 1, count - 2);
    const [left, right] = [Math.min(...xs) - 4, Math.max(...xs) + 4].map((x) => bound(x, columns));
    const [top, bottom] = [Math.min(...ys) - 4, Math.max(...ys) + 4].map((y) => bound(y, rows));
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const place = y * columns + x, part = solids[index[place]]?.part;
        if (part !== FACE && part !== HEAD) continue;
        let sum = 0;
        for (let i = 0; i < 3; i++)
          for (let j = 0; j < 3; j++) sum += shares[i] * shares[j] * dark[4 * (place + (i - 1) * columns + j - 1)];
        lines[place] = 1 - sum / 255;
      }
    }
    return lines;
  }

  // Assigns head pixels just in front of the face to the face, because skull and jaw bulge through it in places.
  uncover(solids) {
    const { columns, index, depth, along, meshes } = this.surface;
    for (const [number, mesh] of meshes) {
      for (let row = 0; row < mesh.rows; row++) {
        for (let column = 0; column < mesh.columns; column++) {
          const at = row * mesh.columns + column, place = (mesh.y0 + row) * columns + mesh.x0 + column;
          if (mesh.seen[at] < 0 || solids[index[place]]?.part !== HEAD) continue;
          if (depth[place] - mesh.depth[at] >= 0.04 * this.unit) continue;
          index[place] = number;
          along[place] = mesh.seen[at];
        }
      }
    }
  }
}

function palmNormal(side, across, along) {
  return unit(times(cross(along, across), side ? 1 : -1));
}

// The elbow's axis; a nearly straight arm counts as bent downward.
function elbowAxis(side, shoulder, elbow, wrist, u) {
  const reach = unit(minus(wrist, shoulder)), usual = times([side ? -0.5 : 0.5, 1, -0.18], 0.04 * u);
  const pole = plus(minus(elbow, shoulder), usual);
  return times(cross(reach, unit(plus(pole, reach, -dot(reach, pole)))), side ? -1 : 1);
}
