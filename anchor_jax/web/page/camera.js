// The camera and the landmark model; pictures never leave the browser.
import { Tracker } from "./track.js";

const WIDTH = 640, HEIGHT = 480;

function script(source) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    Object.assign(element, { src: source, onload: resolve, onerror: () => reject(new Error(`${source} is missing`)) });
    document.head.append(element);
  });
}

export class Camera {
  // Starts the camera and the model. Throws an Error with a message for the user.
  static async start(person) {
    if (!navigator.mediaDevices) throw new Error("Browsers allow camera access only over https or from localhost.");
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true });
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: WIDTH, height: HEIGHT }, audio: false });
    } catch (error) {
      throw new Error(`Cannot use the camera: ${error.message}`);
    }
    await video.play();
    if (!globalThis.Holistic) await script("holistic/holistic.js");
    const model = new globalThis.Holistic({ locateFile: (name) => `holistic/${name}` });
    model.setOptions({ modelComplexity: 1, refineFaceLandmarks: true, smoothLandmarks: false, enableSegmentation: false });
    return new Camera(video, model, person);
  }

  constructor(video, model, person) {
    Object.assign(this, { video, model, tracker: new Tracker(person.measures, person.size) });
    model.onResults((results) => (this.results = results));
  }

  // Returns the landmarks in the camera's current picture, in pixels of the person's picture; null if nobody was seen yet.
  async landmarks() {
    await this.model.send({ image: this.video });
    const { videoWidth: width, videoHeight: height } = this.video, found = this.results;
    // The model's depth grows away from the viewer, in units of the picture's width.
    const points = (landmarks) => landmarks?.map(({ x, y, z }) => [x * width, y * height, -z * width]) ?? null;
    const [body, face] = [points(found.poseLandmarks), points(found.faceLandmarks)];
    const hands = [points(found.leftHandLandmarks), points(found.rightHandLandmarks)];
    const visible = found.poseLandmarks?.map((point) => point.visibility);
    const followed = this.tracker.follow({ body, face, hands, visible }, width, height, performance.now() / 1000);
    // The worker has the person's own measures; they are too large to send with every picture.
    return followed && this.tracker.target ? { ...followed, measures: null } : followed;
  }

  stop() {
    for (const track of this.video.srcObject.getTracks()) track.stop();
    this.model.close();
  }
}
