"""Renders a film of the studio person, or of one of the page's built-in motions.

Example:
  python -m anchor_jax.app.jobs.studio --output=lively.mp4 --motion=lively --size=128 --seconds=4 --fps=25

Writes the film with its sidecar, as a camera and the landmark model would.
"""

from pathlib import Path

from anchor_jax.core.cli import Parser, command
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.files.outputs import SIDECAR
from anchor_jax.studio.performances import DRIVER, MOTIONS

_SEEDS = {"studio": (1_000_003, 2_000_003), "example": (1_000_011, 2_000_005)}  # identity and motion


def motion_path(folder: Path, name: str, size: FrameSize, seconds: int) -> Path:
  """Returns the file of a motion; its name has the size because poses are rendered at the person's size."""
  return folder / f"{name}_{size}_{seconds}s.mp4"


@command
def main() -> None:
  """Runs the command line."""
  parser = Parser("anchor_jax.app.jobs.studio", __doc__)
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.mp4")
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument("--person", choices=sorted(_SEEDS), help="a film to train on")
  source.add_argument("--motion", choices=sorted(MOTIONS), help="a motion to follow")
  parser.add_argument("--size", type=FrameSize.parse, required=True)
  parser.add_argument("--seconds", type=float, required=True)
  parser.add_argument("--fps", type=float, required=True)
  args = parser.parse_args()
  if args.output.exists() and args.output.with_suffix(SIDECAR).exists():
    return  # rendered for an earlier job
  from anchor_jax.studio import write_studio_video

  identity, motion = _SEEDS[args.person] if args.person else (DRIVER, MOTIONS[args.motion].seed)
  write_studio_video(
    args.output,
    identity_seed=identity,
    motion_seed=motion,
    seconds=args.seconds,
    size=args.size,
    fps=args.fps,
    progress="film",
  )


if __name__ == "__main__":  # rendering spawns processes that import this module
  main()
