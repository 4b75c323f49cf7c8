// The page: a choice of motions, the picture, and the frame rate. A worker generates the frames; each is cached.
import { Camera } from "./camera.js";
import { Player } from "./player.js";
import { sides } from "./solids.js";

const element = (name) => document.getElementById(name);
const worker = new Worker(new URL(`worker.js${location.search}`, import.meta.url), { type: "module" });
const waiting = new Map();
let requests = 0;

// Sends a request to the worker; returns a promise of its answer.
function ask(action, args = {}) {
  const number = ++requests;
  return new Promise((resolve, reject) => {
    waiting.set(number, { resolve, reject });
    worker.postMessage({ number, action, ...args });
  });
}

worker.onmessage = ({ data }) => {
  if (data.progress !== undefined) return loading(data.progress, data.share);
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  if (data.error) reject(new Error(data.error));
  else resolve(data.answer);
};
worker.onerror = (event) => failed(new Error(event.message || "the worker failed to start"));

function loading(text, share) {
  element("loading").hidden = share >= 1;
  element("what").textContent = text;
  element("bar").style.width = `${100 * share}%`;
}

function failed(error) {
  loading(error.message, 0);
  element("loading").classList.add("bad");
}

function chooseFrom(labels, chosen) {
  element("motions").replaceChildren(...labels.map((label, number) => {
    const box = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "motion", checked: number === 0 });
    input.addEventListener("change", () => chosen(number));
    box.append(input, label);
    return box;
  }));
}

let camera = null;

async function live(person) {
  camera ??= Camera.start(person);
  try {
    const landmarks = await (await camera).landmarks();
    return landmarks && (await ask("draw", { landmarks }));
  } catch (error) {
    stopCamera();
    throw error;
  }
}

function stopCamera() {
  camera?.then((started) => started.stop(), () => {});
  camera = null;
}

async function start() {
  const person = await ask("load");
  const [width, height] = sides(person.size);
  for (const name of ["picture", "pose"]) Object.assign(element(name), { width, height });
  const player = new Player(element("picture"), element("pose"), ask);
  player.onspeed = (text) => (element("speed").textContent = text);
  player.onerror = failed;
  const motions = [...person.motions, ...(person.camera ? [{ label: "My camera", live: () => live(person) }] : [])];
  const choose = (number) => {
    if (!motions[number].live) stopCamera();
    player.choose(number, motions[number]);
  };
  chooseFrom(motions.map((motion) => motion.label), choose);
  element("show").addEventListener("change", (event) => (element("pose").hidden = !event.target.checked));
  element("play").disabled = false;
  element("play").addEventListener("click", () => {
    player.playing = !player.playing;
    if (!player.playing) stopCamera();
    element("play").textContent = player.playing ? "Pause" : "Play";
  });
  const by = Object.entries(person.made_by).map(([name, version]) => `${name} ${version}`).join(", ");
  element("about").textContent = `${width} x ${height} pixels, on ${person.device}. Created with ${by}.`;
  loading("", 1);
  choose(0);
  player.run();
  // For tests and debugging: frames as RGBA, without playing.
  window.anchor = { person, ask, player };
}

start().catch(failed);
