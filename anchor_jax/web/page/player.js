// Plays a motion: cached frames at the motion's frame rate, new ones as fast as they are generated.

const SPEED_OVER = 1000; // milliseconds over which the frame rate is measured

export class Player {
  playing = true;
  onspeed = () => {};
  onerror = () => {};

  constructor(picture, pose, ask) {
    [this.width, this.height] = [picture.width, picture.height];
    this.picture = picture.getContext("2d");
    this.pose = pose.getContext("2d");
    this.ask = ask;
    this.stored = new Map();
    this.times = [];
  }

  choose(number, motion) {
    this.number = number;
    this.motion = motion;
    this.frame = 0;
    this.times = [];
    if (!motion.live && !this.stored.has(number)) this.stored.set(number, new Array(motion.frames));
  }

  async run() {
    let due = performance.now();
    for (;;) {
      if (!this.playing || document.hidden) {
        await wait(100);
        due = performance.now();
        continue;
      }
      const { number, motion, frame } = this;
      if (motion.live) {
        await this.follow(motion);
        continue;
      }
      const stored = this.stored.get(number), isNew = stored[frame] === undefined;
      try {
        stored[frame] ??= await this.ask("frame", { motion: number, frame });
      } catch (error) {
        return this.onerror(error);
      }
      if (number !== this.number) continue; // the user chose another motion meanwhile
      due = Math.max(due + 1000 / motion.fps, performance.now() - 1000 / motion.fps);
      await wait(due - performance.now());
      this.show(stored[frame]);
      this.count(isNew, motion, stored);
      this.frame = (frame + 1) % motion.frames;
    }
  }

  // Shows a frame of a live motion; `motion.live` returns null if there is nothing to show.
  async follow(motion) {
    try {
      const frame = await motion.live();
      if (motion !== this.motion) return;
      if (!frame) return this.onspeed("Nobody in view: show your upper body and face.");
      this.show(frame);
      this.count(true, motion);
    } catch (error) {
      if (motion === this.motion) this.onspeed(error.message);
      await wait(1000);
    }
  }

  show({ picture, pose }) {
    this.picture.putImageData(new ImageData(picture, this.width, this.height), 0, 0);
    this.pose.putImageData(new ImageData(pose, this.width, this.height), 0, 0);
  }

  count(isNew, motion, stored) {
    const now = performance.now();
    this.times.push(now);
    while (now - this.times[0] > Math.max(SPEED_OVER, 4000 / (motion.fps ?? 1)) && this.times.length > 5) this.times.shift();
    if (this.times.length < 2) return;
    const speed = ((this.times.length - 1) * 1000) / (now - this.times[0]);
    if (!stored) return this.onspeed(`${speed.toFixed(1)} frames/s`);
    const done = stored.reduce((total, frame) => total + (frame !== undefined), 0);
    this.onspeed(isNew ? `generating ${speed.toFixed(1)} frames/s, ${done} of ${motion.frames}` : `${speed.toFixed(1)} frames/s`);
  }
}

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
