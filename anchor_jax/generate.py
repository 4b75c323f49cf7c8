"""Makes a video of a trained person that follows a motion.

Example:
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --output=ana_dances.mp4

The motion is a prepared folder, or a video (which is prepared first: with the poses that come with it, else with the
landmark model). --appearance gives another picture of the person than the one kept from training.
"""

import dataclasses
import tempfile
from pathlib import Path

from anchor_jax.data.video import VideoWriter
from anchor_jax.errors import Parser, UserError, door
from anchor_jax.files import prepare_parent
from anchor_jax.pipeline import Motion, Person, animate, load_person, read_image, read_motion
from anchor_jax.prepare import prepare


def motion_of(path: Path, size: int, frames: int | None) -> Motion:
  """The motion in a prepared folder, or in a video."""
  if path.is_dir():
    motion = read_motion(path, frames)
  else:
    with tempfile.TemporaryDirectory() as folder:
      prepare([path], Path(folder) / "motion", size=size)
      motion = read_motion(Path(folder) / "motion", frames)
  if motion.pose.shape[1] != size:
    raise UserError(
      f"{path} is prepared at {motion.pose.shape[1]} pixels and the person was trained at {size}: prepare it again with"
      f" --size={size}"
    )
  return motion


def with_sampling(person: Person, steps: int | None, guidance: float | None, use_head: bool) -> Person:
  """The person with other sampling settings than those it was trained with."""
  changes = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
  body = dataclasses.replace(person.body, sample=dataclasses.replace(person.body.sample, **changes))
  return Person(body, person.head if use_head else None)


@door
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.generate", __doc__)
  parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="the --workdir of training")
  parser.add_argument("--motion", type=Path, required=True, metavar="PATH", help="a video or a prepared folder")
  parser.add_argument("--appearance", type=Path, metavar="IMAGE", help="a picture of the person")
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.mp4")
  parser.add_argument("--frames", type=int, help="only the first so many frames")
  parser.add_argument("--seed", type=int, default=0, help="names the noise (default 0)")
  parser.add_argument("--steps", type=int, help="sampling steps of the body (default: the checkpoint's)")
  parser.add_argument("--guidance", type=float, help="guidance scale of the body (default: the checkpoint's)")
  parser.add_argument("--no-head", action="store_true", help="leave the faces as the body model paints them")
  args = parser.parse_args()
  if args.output.suffix.lower() != ".mp4":
    raise UserError(f"--output={args.output}: name a file that ends in .mp4")
  if args.frames is not None and args.frames < 1:
    raise UserError(f"--frames={args.frames}: at least 1")
  prepare_parent(args.output)
  person = with_sampling(load_person(args.checkpoint), args.steps, args.guidance, not args.no_head)
  appearance = None if args.appearance is None else read_image(args.appearance)
  motion = motion_of(args.motion, person.body.appearance.shape[0], args.frames)
  tags = {"comment": f"synthetic video made by anchor_jax from {args.checkpoint.name}"}
  with VideoWriter(args.output, motion.fps, metadata=tags) as writer:  # opened first: a bad path must not cost the work
    frames, _ = animate(person, motion, appearance, args.seed)
    for frame in frames:
      writer.write(frame)
  print(f"wrote {args.output}: {len(frames)} frames at {motion.fps:g} frames per second")


if __name__ == "__main__":
  main()
