"""The flags of `generate`, checked before any file is read."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from anchor_jax.config.run import SOLVERS, TAILS, SampleConfig, check_seed
from anchor_jax.core.cli import Parser, mesh_shape, person_flags
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.files.shipped import folder_of
from anchor_jax.landmarks.networks.files import check_landmark_model, landmarks_flag
from anchor_jax.motion.frames import CAMERAS

_SAMPLING = tuple("steps solver window overlap tail guidance guidance_interval whole_clip".split())

# Without overlap no frame is predicted twice, and with --live a frame waits only for the poses of its own window.
SHORT_WINDOWS = {"window": 4, "overlap": 0, "tail": "ragged"}
# Camera poses arrive more slowly; with windows of one frame, no frame waits for another's pose.
SHORTEST_WINDOWS = {**SHORT_WINDOWS, "window": 1}


def parse_flags(doc: str | None) -> argparse.Namespace:
  """Returns the flags, checked as far as possible without reading files; `doc` is the text of --help."""
  parser = Parser("anchor_jax.generate", doc)
  person_flags(parser)
  parser.add_argument(
    "--motion",
    required=True,
    metavar="PATH",
    help="a video, prepared folder, SMPL-X parameters or keypoints; with --live also camera, camera:1, camera:FILM",
  )
  parser.add_argument("--smplx-model", type=Path, metavar="FILE.npz", help="the body model for SMPL-X parameters")
  parser.add_argument(
    "--video", type=int, metavar="N", help="number of the video in a prepared folder, from 0 (default: the first)"
  )
  parser.add_argument(
    "--person-at", metavar="X,Y", help="of several people, follow the one at this point in the first frame"
  )
  landmarks_flag(parser, "a film or a camera as the motion,")
  parser.add_argument(
    "--camera",
    dest="seen_by",
    choices=CAMERAS,
    default="still",
    help="a still room, or one that moves as in the motion's film (default: still)",
  )
  parser.add_argument("--appearance", type=Path, metavar="PATH", help="a picture of the person, or a prepared folder")
  parser.add_argument("--output", type=Path, metavar="FILE.mp4", help="required unless --show is given")
  parser.add_argument(
    "--size", metavar="WxH", help="frames of another size: the person at the same scale, more of the room or less"
  )
  parser.add_argument("--frames", type=int, help="generate only the first FRAMES frames")
  parser.add_argument("--fps", type=float, help="frames per second (default: the motion's)")
  parser.add_argument("--resume", action="store_true", help="continue FILE.partial.mp4 of an interrupted run")
  parser.add_argument("--preview", action="store_true", help="first write the first second to FILE.preview.mp4")
  parser.add_argument("--watermark", default="", metavar="TEXT", help="text in the lower left corner")
  parser.add_argument(
    "--background",
    metavar="PATH",
    help="new background: a picture, a video, green, or transparent (.webm, .mov; no sound)",
  )
  parser.add_argument(
    "--frame",
    choices=("film",),
    help="film: put the frame back into the full picture of the person's film, at the film's own resolution",
  )
  parser.add_argument("--no-audio", action="store_true", help="leave out the motion video's sound")
  parser.add_argument(
    "--skip-empty",
    action="store_true",
    help="leave out frames in which nobody is seen, with their sound; else they rest",
  )
  parser.add_argument("--no-retarget", action="store_true", help="do not map the motion onto the person's body")
  parser.add_argument("--no-head", action="store_true", help="keep the faces that the body model paints")
  parser.add_argument(
    "--head",
    action="store_true",
    help="repaint faces also if that made held-out frames worse, and with --live, where it takes longer",
  )
  parser.add_argument("--seed", type=int, default=0, help="noise seed (default 0)")
  parser.add_argument("--mesh", default="", metavar="WxF", help="shard windows over W devices and their frames over F")
  parser.add_argument(
    "--decoder",
    metavar="KIND",
    help="exact (the autoencoder), light (faster, slightly worse), or a folder that distil wrote (default: exact; light"
    " with --fast or --live)",
  )
  parser.add_argument(
    "--fast", action="store_true", help="short windows and the light decoder: twice the speed, slightly worse"
  )
  parser.add_argument(
    "--live",
    action="store_true",
    help="real time: take poses at their frame rate, write frames as they are done; without the head",
  )
  parser.add_argument("--show", action="store_true", help="with a camera: show the frames in a window (q quits)")
  parser.add_argument("--json", type=Path, metavar="FILE", help="with --live: latency and frames per second")
  body = parser.add_argument_group("sampling of the body (defaults: the checkpoint's settings)")
  body.add_argument("--steps", type=int, help="sampling steps")
  body.add_argument("--solver", choices=SOLVERS)
  body.add_argument("--window", type=int, help="frames per window")
  body.add_argument("--overlap", type=int, help="frames that a window shares with the next")
  body.add_argument("--tail", choices=TAILS, help="how the last windows reach the end of the clip")
  body.add_argument("--window-weights", choices=("uniform",), help=argparse.SUPPRESS)  # had another choice once
  body.add_argument("--guidance", type=float, help="guidance scale; at most 1 runs one branch")
  body.add_argument(
    "--guidance-interval",
    type=_interval,
    metavar="LO,HI",
    help="noise levels (0 to 1) with guidance; elsewhere the null branch does not run",
  )
  body.add_argument(
    "--attended-frames",
    type=int,
    metavar="N",
    help="frames that each frame attends to: itself, a neighbor, others spread over the window; 0 is all (exact)",
  )
  body.add_argument("--whole-clip", action="store_const", const=True, help="hold the full clip in memory")
  args = parser.parse_args()
  args.camera = _camera(args.motion)
  args.motion = Path(args.motion)
  check_output(args)
  if args.frames is not None and args.frames < 1:
    raise UserError(f"--frames={args.frames}: give at least 1")
  args.size = None if args.size is None else FrameSize.parse(args.size)
  if args.fps is not None and not 0 < args.fps <= 240:
    raise UserError(f"--fps={args.fps:g}: give frames per second above 0, at most 240")
  check_landmark_model(args.landmarks)
  if args.person_at is not None:
    from anchor_jax.landmarks.people import parse_point

    args.person_at = parse_point(args.person_at)
  for flag, given in (("--size", args.size), ("--frame=film", args.frame)):
    if args.seen_by == "film" and given:
      raise UserError(f"--camera=film can't be combined with {flag}: leave one of them out")
  if args.frame is not None:
    for flag in ("size", "background", "live"):
      if getattr(args, flag):
        raise UserError(f"--{flag} can't be combined with --frame=film: leave one of them out")
  check_seed(args.seed)
  mesh_shape(args.mesh)
  _fill_in(args)
  return args


def _fill_in(args: argparse.Namespace) -> None:
  """Applies the defaults of --fast and --live; raises UserError for flags that --live excludes."""
  if args.camera is not None:
    _check_camera(args)
  short = args.fast or args.live
  args.decoder = args.decoder or ("light" if short else "exact")
  windows = SHORT_WINDOWS if args.camera is None else SHORTEST_WINDOWS
  for name, value in windows.items() if short else ():
    setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
  if args.json and not args.live:
    raise UserError("--json needs --live: add it, or leave --json out")
  if args.head and args.no_head:
    raise UserError("--head and --no-head exclude each other: leave one of them out")
  if not args.live:
    return
  for flag in ("resume", "preview", "whole_clip", "mesh", "background"):
    if getattr(args, flag):
      raise UserError(f"--{flag.replace('_', '-')} can't be combined with --live: leave one of them out")
  args.no_head, args.whole_clip = not args.head, False


def _camera(motion: str) -> int | Path | None:
  """The camera that --motion names (a number, or a film used as a camera); None for another motion."""
  if not motion.startswith("camera"):
    return None
  from anchor_jax.video.camera import camera_named

  return camera_named(motion)


def _check_camera(args: argparse.Namespace) -> None:
  """Raises UserError for flags that a camera excludes."""
  if not args.live:
    raise UserError(f"--motion={args.motion} needs --live: a camera is followed in real time")
  for flag in ("person_at", "video", "smplx_model", "skip_empty"):
    if getattr(args, flag) not in (None, False):
      raise UserError(f"--{flag.replace('_', '-')} can't be combined with a camera: leave one of them out")


def _interval(text: str) -> tuple[float, ...]:
  try:
    return tuple(float(number) for number in text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text} is not two noise levels, such as 0.2,0.8") from None


def check_output(args: argparse.Namespace) -> None:
  """Checks the output's file name; raises UserError if the video can't have it."""
  if args.show and args.camera is None:
    raise UserError("--show needs a camera: add --live --motion=camera, or leave it out")
  if args.output is None:
    if args.show:
      return
    raise UserError(
      "--output=FILE.mp4 is missing: name the video to write" + " (or --show)" * (args.camera is not None)
    )
  suffix = args.output.suffix.lower()
  if args.background != "transparent":
    if suffix != ".mp4":
      raise UserError(f"--output={args.output}: name a file that ends in .mp4")
  elif suffix not in (".webm", ".mov"):
    raise UserError(f"--output={args.output}: for a transparent video, name a file that ends in .webm or .mov")
  elif args.resume or args.preview or args.watermark:
    raise UserError("--background=transparent excludes --resume, --preview and --watermark: leave them out")


def sampling_changes(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the sampling settings that flags override, checked alone and together with the checkpoint's settings.

  Raises:
    UserError: a value is out of range, or conflicts with the checkpoint's config.json.
  """
  changes = {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
  try:
    body = folder_of(args.checkpoint) / "body"
    if (body / "config.json").is_file():
      from anchor_jax.config.stored import read_settings

      dataclasses.replace(read_settings(body).sample, **changes)
    else:
      # The other settings are not known yet, but a value that is always invalid can be refused here.
      window = {"overlap": 0} if "overlap" not in changes else {"window": changes["overlap"] + 1}
      SampleConfig(**{**window, **changes})
  except UserError as error:
    raise UserError(f"--{error}") from None
  return changes
