"""Makes a video of a trained person that follows a motion, of any length.

Example:
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --output=ana_dances.mp4

The motion is a prepared folder, or a video (with the poses of its sidecar, else those that the landmark model finds;
its sound is copied). --appearance gives another picture of the person than the one kept from training.

While it runs, ana_dances.partial.mp4 plays as far as it got. Stopped for whatever reason, the same command with
--resume goes on from there.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from tqdm import tqdm

from anchor_jax import parallel
from anchor_jax.cli import Parser, command
from anchor_jax.data.motions import read_motion
from anchor_jax.diffusion.solvers import SOLVERS
from anchor_jax.diffusion.windows import TAILS, WEIGHTS
from anchor_jax.errors import UserError
from anchor_jax.files import partial_path, prepare_parent, refuse_overwriting
from anchor_jax.motion.motion import Motion
from anchor_jax.motion.picture import read_picture
from anchor_jax.motion.resumable import ResumableWriter
from anchor_jax.motion.video import VideoWriter
from anchor_jax.person import Person, animate, chosen_person, person_flags
from anchor_jax.shapes import NdArray, UInt8


def watermarked(frame: UInt8[NdArray, "H W 3"], text: str) -> UInt8[NdArray, "H W 3"]:
  """The frame with a text in its lower left corner, light on a dark bar."""
  if not text:
    return frame
  frame, height, font = frame.copy(), frame.shape[0], cv2.FONT_HERSHEY_SIMPLEX
  scale = max(0.35, height / 800)
  (width, tall), below = cv2.getTextSize(text, font, scale, 1)
  cv2.rectangle(frame, (0, height - tall - below - 4), (width + 6, height), (20, 20, 20), -1)
  cv2.putText(frame, text, (3, height - below - 2), font, scale, (235, 235, 235), 1, cv2.LINE_AA)
  return frame


def settings_of(person: Person, args: argparse.Namespace, fps: float) -> dict[str, Any]:
  """All that the frames depend on, for the file's metadata."""
  body, head = person.body, person.head
  return {
    "synthetic": True,
    "made_by": f"anchor_jax {importlib.metadata.version('anchor_jax')}",
    "checkpoint": args.checkpoint.resolve().name,
    "motion": args.motion.name,
    "appearance": args.appearance.name if args.appearance else None,
    "seed": args.seed,
    "fps": fps,
    "watermark": args.watermark,
    "body": {"step": body.step, **dataclasses.asdict(body.sample)},
    "head": head and {"step": head.step, **dataclasses.asdict(head.sample)},
  }


def parse() -> argparse.Namespace:
  """The flags, checked as far as they can be by themselves."""
  parser = Parser("anchor_jax.generate", __doc__)
  person_flags(parser)
  parser.add_argument("--motion", type=Path, required=True, metavar="PATH", help="a video or a prepared folder")
  parser.add_argument("--appearance", type=Path, metavar="IMAGE", help="a picture of the person")
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.mp4")
  parser.add_argument("--frames", type=int, help="only the first so many frames")
  parser.add_argument("--fps", type=float, help="frames per second (default: the motion's)")
  parser.add_argument("--resume", action="store_true", help="go on with FILE.partial.mp4 of a run that was stopped")
  parser.add_argument("--preview", action="store_true", help="first write the first second, to FILE.preview.mp4")
  parser.add_argument("--watermark", default="", metavar="TEXT", help="shown in the lower left corner")
  parser.add_argument("--no-audio", action="store_true", help="leave the motion video's sound out")
  parser.add_argument("--no-head", action="store_true", help="leave the faces as the body model paints them")
  parser.add_argument("--seed", type=int, default=0, help="names the noise (default 0)")
  parser.add_argument("--mesh", default="", metavar="WxF", help="spread windows over W devices, their frames over F")
  body = parser.add_argument_group("sampling of the body (default: the checkpoint's settings)")
  body.add_argument("--steps", type=int, help="sampling steps")
  body.add_argument("--solver", choices=SOLVERS)
  body.add_argument("--window", type=int, help="frames of a window")
  body.add_argument("--overlap", type=int, help="frames that a window shares with the next")
  body.add_argument("--tail", choices=TAILS, help="how the last windows end")
  body.add_argument("--window-weights", choices=WEIGHTS, help="what a frame weighs in a window")
  body.add_argument("--guidance", type=float, help="guidance scale; 1 or less runs one branch")
  body.add_argument("--whole-clip", action="store_const", const=True, help="hold the whole clip in memory")
  args = parser.parse_args()
  if args.output.suffix.lower() != ".mp4":
    raise UserError(f"--output={args.output}: name a file that ends in .mp4")
  for name in ("frames", "steps"):
    if getattr(args, name) is not None and getattr(args, name) < 1:
      raise UserError(f"--{name}={getattr(args, name)}: at least 1")
  if args.fps is not None and not 0 < args.fps <= 240:
    raise UserError(f"--fps={args.fps:g}: give frames per second above 0, at most 240")
  return args


def mesh_of(text: str) -> Any:
  """The devices to spread windows over; by default one, and all of them for the windows where there are several."""
  if not text:
    return None if jax.device_count() == 1 else parallel.sampling_mesh(jax.device_count(), 1)
  try:
    windows, frames = (int(number) for number in text.lower().split("x"))
  except ValueError:
    raise UserError(f"--mesh={text}: give two numbers of devices, such as 4x2") from None
  return parallel.sampling_mesh(windows, frames)


def generate(args: argparse.Namespace) -> int:
  """Writes the video; returns its number of frames."""
  names = ("steps", "solver", "window", "overlap", "tail", "window_weights", "guidance", "whole_clip")
  inputs = [args.motion, *(args.checkpoint / part for part in ("body", "head")), *filter(None, [args.appearance])]
  refuse_overwriting(args.output, inputs)
  prepare_parent(args.output)  # a bad path must not cost the work
  changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
  person = chosen_person(args, not args.no_head).with_sampling(**changes)
  appearance = None if args.appearance is None else read_picture(args.appearance)
  mesh = mesh_of(args.mesh)
  motion = read_motion(args.motion, size=person.size, frames=args.frames, fps=args.fps)
  settings = settings_of(person, args, motion.fps)
  writer = ResumableWriter(args.output, motion.fps, settings, args.resume)
  if args.preview and not writer.frames:
    write_preview(person, motion.first(max(1, round(motion.fps))), appearance, args)
  start = min(writer.frames, motion.length or writer.frames)
  bar = tqdm(total=motion.length, initial=start, desc="generate", unit="frame")
  with contextlib.closing(writer), bar, parallel.use_mesh(mesh):
    if start != motion.length:
      for frame, _ in animate(person, motion, appearance, args.seed, start, mesh):
        writer.write(watermarked(frame, args.watermark))
        bar.update()
    tags = {"title": f"synthetic video of {settings['checkpoint']}", "synthetic": "true"}
    sound = None if args.motion.is_dir() or args.no_audio else args.motion
    writer.finish(tags, sound)
  return writer.frames


def write_preview(person: Person, motion: Motion, appearance: NdArray | None, args: argparse.Namespace) -> None:
  """Writes the first second, and says where."""
  place = partial_path(args.output, "preview")
  with VideoWriter(place, motion.fps, metadata={"comment": "synthetic: a preview"}) as writer:
    shown = tqdm(animate(person, motion, appearance, args.seed), total=motion.length, desc="preview", unit="frame")
    for frame, _ in shown:
      writer.write(watermarked(np.asarray(frame), args.watermark))
  print(f"the first second is in {place}", flush=True)


@command
def main() -> None:
  """The command line."""
  args = parse()
  count = generate(args)
  print(f"wrote {args.output}: {count} frames")


if __name__ == "__main__":
  main()
