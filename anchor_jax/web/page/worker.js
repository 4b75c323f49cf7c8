// Generates frames in the background: unpacks motions, looks up the person's texture, and runs the network.
import { PoseRenderer } from "./body.js";
import { makeLookUp } from "./look_up.js";
import { sides } from "./solids.js";

const LARGEST_ERROR = 0.03; // of pictures from 0 to 1; a device may round to 16 bits
const FORMAT = "anchor_jax web 1";
const TYPES = { uint8: Uint8Array, int8: Int8Array, int16: Int16Array, int32: Int32Array };
let person, pixels, session, ort, lookUp, renderer, body;
const motions = new Map();

const say = (progress, share) => postMessage({ progress, share });

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing (${response.status})`);
  return response;
}

async function unpacked(name) {
  const stream = (await fetched(name)).body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function download(name, text) {
  const response = await fetched(name), total = Number(response.headers.get("Content-Length"));
  const reader = response.body.getReader(), parts = [];
  for (let received = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    say(text, total ? (0.9 * received) / total : 0.5);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Starts the runtime on the GPU if the browser offers WebGPU, else on the CPU.
async function startSession(program) {
  const requested = new URLSearchParams(self.location.search).get("device");
  const adapter = requested === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter) {
    try {
      return await onDevice("webgpu", program);
    } catch (error) {
      console.warn("WebGPU cannot run this person:", error);
    }
  }
  return await onDevice("wasm", program);
}

async function onDevice(device, program) {
  ort = await import(device === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("ort/", self.location.href).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(program, { executionProviders: [device] });
  const numbers = (count) => Uint8Array.from({ length: count }, (_, i) => (31 * i) % 256);
  const result = await run(numbers(pixels * 3), numbers(pixels * person.channels));
  const step = Math.max(1, Math.floor(result.length / 64));
  if (person.check.some((value, i) => !(Math.abs(result[i * step] - value) < LARGEST_ERROR)))
    throw new Error(`this browser's ${device} computes wrong pictures`);
  return device === "webgpu" ? "WebGPU" : `${ort.env.wasm.numThreads} thread${ort.env.wasm.numThreads > 1 ? "s" : ""}`;
}

async function load() {
  say("Loading", 0);
  person = await (await fetched("person.json")).json();
  if (person.format !== FORMAT) throw new Error("person.json has another version: export the person again");
  pixels = sides(person.size).reduce((width, height) => width * height);
  if (person.tables) {
    const data = await unpacked("tables.bin"), tables = {};
    for (const [name, { type, start, shape }] of Object.entries(person.tables))
      tables[name] = new TYPES[type](data.buffer, start, shape.reduce((a, b) => a * b, 1));
    lookUp = makeLookUp(tables, person.size, person.tables.frames.shape[0], person.channels);
  }
  const program = await download("frame.onnx", "Loading");
  say("Starting", 0.95);
  return { ...person, device: await startSession(program) };
}

async function run(pose, channels) {
  const shape = (last) => [1, ...sides(person.size).toReversed(), last];
  const inputs = { pose: new ort.Tensor("uint8", pose, shape(3)) };
  if (person.channels) inputs.channels = new ort.Tensor("uint8", channels, shape(person.channels));
  return (await session.run(inputs)).picture.data;
}

// The frames of a motion, which are stored as differences from the previous frame.
async function motion(number) {
  if (!motions.has(number)) {
    const data = await unpacked(person.motions[number].file), step = data.length / person.motions[number].frames;
    for (let i = step; i < data.length; i++) data[i] += data[i - step];
    motions.set(number, data);
  }
  return motions.get(number);
}

function opaque(values, scale) {
  const result = new Uint8ClampedArray(4 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let i = 0; i < 3; i++) result[4 * pixel + i] = values[3 * pixel + i] * scale; // rounds half to even, like JAX
    result[4 * pixel + 3] = 255;
  }
  return result;
}

async function frame({ motion: number, frame: index }) {
  const data = await motion(number), step = data.length / person.motions[number].frames;
  const pose = data.slice(index * step, index * step + 3 * pixels);
  const surface = data.subarray(index * step + 3 * pixels, (index + 1) * step);
  return await painted(pose, surface);
}

// The picture of a pose render and a surface map.
async function painted(pose, surface) {
  const channels = lookUp ? lookUp(surface) : new Uint8Array(pixels * person.channels);
  const values = await run(pose, channels);
  // Bytes have no NaN; it would turn black.
  if (!values.every(Number.isFinite)) throw new Error(`this picture has values that are not finite: reload the page`);
  const picture = opaque(values, 255);
  return { picture, pose: opaque(pose, 1) };
}

// The picture for landmarks in pixels; `measures` are the body measures for the pose render, null for the person's own.
async function draw({ landmarks: { measures, ...points } }) {
  body ??= await (await fetched("body.json")).json();
  const key = measures ? JSON.stringify(measures) : "person", used = measures ?? person.measures;
  if (renderer?.key !== key) renderer = Object.assign(new PoseRenderer(body, person.size, used), { key });
  const { pose, surface } = renderer.render(points);
  return { ...(await painted(pose, surface)), surface };
}

const channelsOf = async ({ motion: number, frame: index }) => {
  const data = await motion(number), step = data.length / person.motions[number].frames;
  return lookUp(data.subarray(index * step + 3 * pixels, (index + 1) * step)).slice();
};

const actions = { load, frame, draw, channels: channelsOf };
let last = Promise.resolve();
self.onmessage = ({ data: { number, action, ...args } }) => {
  // One at a time: the look-up reuses its buffers.
  last = last.then(async () => {
    try {
      postMessage({ number, answer: await actions[action](args) });
    } catch (error) {
      postMessage({ number, error: String(error?.message ?? error) });
    }
  });
};
