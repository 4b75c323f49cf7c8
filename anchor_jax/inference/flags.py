"""The flags of `generate`, checked before anything is read."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from anchor_jax.config.run import SOLVERS, TAILS, WINDOW_WEIGHTS, SampleConfig, check_seed
from anchor_jax.core.cli import Parser, mesh_shape, person_flags
from anchor_jax.core.errors import UserError
from anchor_jax.files.shipped import folder_of

_SAMPLING = tuple("steps solver window overlap tail window_weights guidance guidance_interval whole_clip".split())

# No window overlaps the next: no frame is predicted twice, and with --live it waits for the poses of its window alone.
SHORT_WINDOWS = {"window": 4, "overlap": 0, "tail": "ragged"}
# Before a camera poses come more slowly, and no frame waits for those of others.
SHORTEST_WINDOWS = {**SHORT_WINDOWS, "window": 1}


def parse_flags(doc: str | None) -> argparse.Namespace:
  """Returns the flags, checked as far as they can be without reading a file; `doc` is the text of --help."""
  parser = Parser("anchor_jax.generate", doc)
  person_flags(parser)
  parser.add_argument(
    "--motion",
    required=True,
    metavar="PATH",
    help="a video, a prepared folder, SMPL-X parameters, keypoints; with --live also camera, camera:1, camera:FILM",
  )
  parser.add_argument("--smplx-model", type=Path, metavar="FILE.npz", help="the body model that poses such parameters")
  parser.add_argument(
    "--video", type=int, metavar="N", help="which video of a prepared folder of several, from 0 (default: the first)"
  )
  parser.add_argument(
    "--person-at", metavar="X,Y", help="who makes the motion when its video begins, of several people"
  )
  parser.add_argument("--appearance", type=Path, metavar="PATH", help="a picture of the person, or a prepared folder")
  parser.add_argument("--output", type=Path, metavar="FILE.mp4", help="needed, but with a camera and --show")
  parser.add_argument("--frames", type=int, help="generate only the first so many frames")
  parser.add_argument("--fps", type=float, help="frames per second (default: the motion's)")
  parser.add_argument("--resume", action="store_true", help="go on with FILE.partial.mp4 of a run that was stopped")
  parser.add_argument("--preview", action="store_true", help="first write the first second, to FILE.preview.mp4")
  parser.add_argument("--watermark", default="", metavar="TEXT", help="shown in the lower left corner")
  parser.add_argument(
    "--background",
    metavar="PATH",
    help="in place of her room: a picture, a video, green, transparent (.webm, .mov; no sound)",
  )
  parser.add_argument("--no-audio", action="store_true", help="leave out the sound of the motion video")
  parser.add_argument("--no-retarget", action="store_true", help="keep the build and place of the person in the video")
  parser.add_argument("--no-head", action="store_true", help="leave the faces as the body model paints them")
  parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
  parser.add_argument("--mesh", default="", metavar="WxF", help="shard windows over W devices, their frames over F")
  parser.add_argument(
    "--decoder",
    metavar="KIND",
    help="exact (the autoencoder), light (faster, loses a little), or a folder that distil wrote (default: exact, with"
    " --fast or --live light)",
  )
  parser.add_argument(
    "--fast", action="store_true", help="short windows and the light decoder: twice the speed, loses a little"
  )
  parser.add_argument(
    "--live",
    action="store_true",
    help="take poses at their rate, write frames as they come; without head",
  )
  parser.add_argument("--head", action="store_true", help="with --live: the head model too, which takes longer")
  parser.add_argument("--show", action="store_true", help="with a camera: show the frames in a window, in which q ends")
  parser.add_argument("--json", type=Path, metavar="FILE", help="with --live: latency and frames per second")
  body = parser.add_argument_group("sampling of the body (default: the checkpoint's settings)")
  body.add_argument("--steps", type=int, help="sampling steps")
  body.add_argument("--solver", choices=SOLVERS)
  body.add_argument("--window", type=int, help="frames of a window")
  body.add_argument("--overlap", type=int, help="frames that a window shares with the next")
  body.add_argument("--tail", choices=TAILS, help="how the last windows end")
  body.add_argument("--window-weights", choices=WINDOW_WEIGHTS, help="weights of the frames of a window in the mean")
  body.add_argument("--guidance", type=float, help="guidance scale; 1 or less runs one branch")
  body.add_argument(
    "--guidance-interval",
    type=_interval,
    metavar="LO,HI",
    help="noise levels, 0 to 1, at which guidance acts; the null branch does not run at the others",
  )
  body.add_argument(
    "--attended-frames",
    type=int,
    metavar="N",
    help="frames that each frame of a window attends to: itself, a neighbour, others spread out; 0 is all (exact)",
  )
  body.add_argument("--whole-clip", action="store_const", const=True, help="hold the whole clip in memory")
  args = parser.parse_args()
  args.camera = _camera(args.motion)
  args.motion = Path(args.motion)
  check_output(args)
  if args.frames is not None and args.frames < 1:
    raise UserError(f"--frames={args.frames}: at least 1")
  if args.fps is not None and not 0 < args.fps <= 240:
    raise UserError(f"--fps={args.fps:g}: give frames per second above 0, at most 240")
  if args.person_at is not None:
    from anchor_jax.landmarks.people import parse_point

    args.person_at = parse_point(args.person_at)
  check_seed(args.seed)
  mesh_shape(args.mesh)
  _fill_in(args)
  return args


def _fill_in(args: argparse.Namespace) -> None:
  """Fills in what --fast and --live decide on; raises UserError for flags that do not go with --live."""
  if args.camera is not None:
    _check_camera(args)
  short = args.fast or args.live
  args.decoder = args.decoder or ("light" if short else "exact")
  windows = SHORT_WINDOWS if args.camera is None else SHORTEST_WINDOWS
  for name, value in windows.items() if short else ():
    setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
  if args.json and not args.live:
    raise UserError("--json is for --live: add it, or leave --json out")
  if args.head and (args.no_head or not args.live):
    raise UserError("--head is for --live, and not with --no-head: leave it out")
  if not args.live:
    return
  for flag in ("resume", "preview", "whole_clip", "mesh", "background"):
    if getattr(args, flag):
      raise UserError(f"--{flag.replace('_', '-')} does not go with --live: leave one of them out")
  args.no_head, args.whole_clip = not args.head, False


def _camera(motion: str) -> int | Path | None:
  """The camera, or the film that plays as one, that --motion names; else None."""
  if not motion.startswith("camera"):
    return None
  from anchor_jax.video.camera import camera_named

  return camera_named(motion)


def _check_camera(args: argparse.Namespace) -> None:
  """Raises UserError for flags that do not go with a camera."""
  if not args.live:
    raise UserError(f"--motion={args.motion} needs --live: poses are found while they are filmed")
  for flag in ("person_at", "video", "smplx_model"):
    if getattr(args, flag) is not None:
      raise UserError(f"--{flag.replace('_', '-')} does not go with a camera: leave one of them out")


def _interval(text: str) -> tuple[float, ...]:
  try:
    return tuple(float(number) for number in text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text} is not two noise levels, such as 0.2,0.8") from None


def check_output(args: argparse.Namespace) -> None:
  """Checks that the output's name is one that the video can have. Raises UserError otherwise."""
  if args.show and args.camera is None:
    raise UserError("--show is for a camera: add --live --motion=camera, or leave it out")
  if args.output is None:
    if args.show:
      return
    raise UserError(
      "--output=FILE.mp4 is missing: say where the video goes" + " (or --show)" * (args.camera is not None)
    )
  suffix = args.output.suffix.lower()
  if args.background != "transparent":
    if suffix != ".mp4":
      raise UserError(f"--output={args.output}: name a file that ends in .mp4")
  elif suffix not in (".webm", ".mov"):
    raise UserError(f"--output={args.output}: a transparent video needs a name that ends in .webm or .mov")
  elif args.resume or args.preview or args.watermark:
    raise UserError("--background=transparent goes without --resume, --preview and --watermark")


def sampling_changes(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the sampling settings that flags replace, checked by themselves and with the checkpoint's settings.

  Raises:
    UserError: a value is out of range, or does not go with what the checkpoint's config.json says.
  """
  changes = {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
  try:
    body = folder_of(args.checkpoint) / "body"
    if (body / "config.json").is_file():
      from anchor_jax.config.stored import read_settings

      dataclasses.replace(read_settings(body).sample, **changes)
    else:
      # Nothing is known of the other settings yet: a value that no setting goes with is refused here all the same.
      window = {"overlap": 0} if "overlap" not in changes else {"window": changes["overlap"] + 1}
      SampleConfig(**{**window, **changes})
  except UserError as error:
    raise UserError(f"--{error}") from None
  return changes
