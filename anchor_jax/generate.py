"""Makes a video of a trained person that follows a motion, of any length.

Example:
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --output=ana_dances.mp4

The checkpoint is a --workdir of training, a folder of adapters or of diffusers models, or "studio", the shipped weights
(with --appearance). The motion is a prepared folder, or a video: its poses come from its sidecar or else from the
landmark model, and its sound is copied. --appearance is a picture of the person, or a prepared folder, and replaces the
reference kept from training. A prepared folder also shows networks that can see it (config.data.appearance) texture and
room: other clothes, or a person straight after `prepare` (--checkpoint=studio). SMPL-X parameters as SHOW and TalkSHOW
write them (.npz, .npy, .pkl) are a motion too, with --smplx-model=SMPLX_NEUTRAL.npz (docs/motions.md).

The motion of another person's video is mapped onto her own body and her place in the picture: shoulders, arms, hands,
head. --no-retarget leaves it as it is. Prepared folders and sidecars, as the studio's videos have, are always left as
they are. Her measures are known where she was prepared from videos without sidecars. Of several people in a video the
largest is followed, or the one at --person-at=0.3,0.4 (shares of the picture, or pixels) when it begins.

--background puts her before a picture, a video or plain green instead of her room; with --background=transparent and
--output=FILE.webm (for browsers) or FILE.mov (for editors) the room is left out, and so is the sound.

While it runs, ana_dances.partial.mp4 plays as far as it got. Stopped for whatever reason, the same command with
--resume goes on from there.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor_jax.cli import Parser, command, mesh_shape, person_flags
from anchor_jax.config import SOLVERS, TAILS, WINDOW_WEIGHTS, SampleConfig, check_seed
from anchor_jax.errors import UserError
from anchor_jax.files import new_file, partial_path, prepare_parent, refuse_overwriting

if TYPE_CHECKING:
  from collections.abc import Callable

  from anchor_jax.motion.measures import BodyMeasures
  from anchor_jax.motion.motion import Motion
  from anchor_jax.person import Person
  from anchor_jax.reference import Reference

_SAMPLING = tuple("steps solver window overlap tail window_weights guidance guidance_interval whole_clip".split())

# No window overlaps the next: no frame is predicted twice, and with --live it waits for the poses of its window alone.
SHORT_WINDOWS = {"window": 4, "overlap": 0, "tail": "ragged"}


def parse() -> argparse.Namespace:
  """Returns the flags, checked as far as they can be without reading a file."""
  parser = Parser("anchor_jax.generate", __doc__)
  person_flags(parser)
  parser.add_argument(
    "--motion",
    type=Path,
    required=True,
    metavar="PATH",
    help="a video, a prepared folder, SMPL-X parameters, keypoints",
  )
  parser.add_argument("--smplx-model", type=Path, metavar="FILE.npz", help="the body model that poses such parameters")
  parser.add_argument(
    "--video", type=int, metavar="N", help="which video of a prepared folder of several, from 0 (default: the first)"
  )
  parser.add_argument(
    "--person-at", metavar="X,Y", help="who makes the motion when its video begins, of several people"
  )
  parser.add_argument("--appearance", type=Path, metavar="PATH", help="a picture of the person, or a prepared folder")
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.mp4")
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
    "--live", action="store_true", help="take poses at their rate, write frames as they come; no head"
  )
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
  check_output(args)
  if args.frames is not None and args.frames < 1:
    raise UserError(f"--frames={args.frames}: at least 1")
  if args.fps is not None and not 0 < args.fps <= 240:
    raise UserError(f"--fps={args.fps:g}: give frames per second above 0, at most 240")
  if args.person_at is not None:
    from anchor_jax.motion.people import parse_point

    args.person_at = parse_point(args.person_at)
  check_seed(args.seed)
  mesh_shape(args.mesh)
  _fill_in(args)
  return args


def _fill_in(args: argparse.Namespace) -> None:
  """Fills in what --fast and --live decide on; raises UserError for flags that do not go with --live."""
  short = args.fast or args.live
  args.decoder = args.decoder or ("light" if short else "exact")
  for name, value in SHORT_WINDOWS.items() if short else ():
    setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
  if args.json and not args.live:
    raise UserError("--json is for --live: add it, or leave --json out")
  if not args.live:
    return
  for flag in ("resume", "preview", "whole_clip", "mesh", "background"):
    if getattr(args, flag):
      raise UserError(f"--{flag.replace('_', '-')} does not go with --live: leave one of them out")
  args.no_head, args.whole_clip = True, False


def _interval(text: str) -> tuple[float, ...]:
  try:
    return tuple(float(number) for number in text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text} is not two noise levels, such as 0.2,0.8") from None


def check_output(args: argparse.Namespace) -> None:
  """Checks that the output's name is one that the video can have. Raises UserError otherwise."""
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
    if (args.checkpoint / "body" / "config.json").is_file():
      from anchor_jax.store.settings import read_settings

      dataclasses.replace(read_settings(args.checkpoint / "body").sample, **changes)
    else:
      # Nothing is known of the other settings yet: a value that no setting goes with is refused here all the same.
      window = {"overlap": 0} if "overlap" not in changes else {"window": changes["overlap"] + 1}
      SampleConfig(**{**window, **changes})
  except UserError as error:
    raise UserError(f"--{error}") from None
  return changes


def generate(args: argparse.Namespace) -> int:
  """Writes the video; returns its number of frames."""
  given = filter(None, [args.appearance, args.smplx_model])
  inputs = [args.motion, *(args.checkpoint / part for part in ("body", "head")), *given]
  if args.background:
    from anchor_jax.motion.backgrounds import check_background

    check_background(args.background)
    inputs.append(Path(args.background))
  refuse_overwriting(args.output, inputs)
  changes = sampling_changes(args)
  prepare_parent(args.output)
  # JAX takes seconds to import: everything above does without it.
  from tqdm import tqdm

  from anchor_jax.data.motions import check_motion, read_motion
  from anchor_jax.motion.resumable import ResumableWriter
  from anchor_jax.motion.transparent import TransparentWriter
  from anchor_jax.person import load
  from anchor_jax.reference import read_reference
  from anchor_jax.runtime import enable_compilation_cache
  from anchor_jax.store.weights import parts_in

  enable_compilation_cache()
  parts_in(args.checkpoint)
  # a wrong path must not cost the seconds that reading a person takes
  check_motion(args.motion, args.fps, args.smplx_model, args.person_at)
  reference = None if args.appearance is None else read_reference(args.appearance)
  mesh = make_mesh(args.mesh)
  head, step = not args.no_head, args.checkpoint_step
  person = load(args.checkpoint, step=step, base=args.base, head=head).with_sampling(**changes)
  person = person.with_decoder(args.decoder)
  if args.attended_frames is not None:
    person = person.with_attended_frames(args.attended_frames)
  measures = measures_of(person, reference, args.motion, not args.no_retarget)
  options = {"frames": args.frames, "fps": args.fps, "video": args.video, "measures": measures}
  options |= {"mapped": not args.no_retarget, "smplx_model": args.smplx_model, "person_at": args.person_at}
  motion = read_motion(args.motion, size=person.size, **options)
  settings = settings_of(person, args, motion.fps) | settings_of_body(measures, not args.no_retarget)
  tags = {"title": f"synthetic video of {settings['checkpoint']}", "synthetic": "true"}
  if args.background == "transparent":
    writer = TransparentWriter(args.output, motion.fps, {**tags, "comment": json.dumps(settings, sort_keys=True)})
  else:
    writer = ResumableWriter(args.output, motion.fps, settings, args.resume, args.live)
  if args.preview and not writer.frames:
    write_preview(person, motion.first(max(1, round(motion.fps))), reference, args)
  start = min(writer.frames, motion.length or writer.frames)
  motion, placed = before_background(args, person, reference, motion, start)
  bar = tqdm(total=motion.length, initial=start, desc="generate", unit="frame")
  with contextlib.closing(writer), bar:
    if args.live:
      from anchor_jax.live import play

      timing = play(
        person,
        motion,
        lambda frame: (writer.write(watermarked(frame, args.watermark)), bar.update()),
        reference,
        args.seed,
      )
      _report(timing.to_json(), args.json)
    elif start != motion.length:
      for frame in person.animate(motion, reference, args.seed, start, mesh):
        writer.write(watermarked(placed(frame), args.watermark))
        bar.update()
    silent = args.no_audio or args.motion.is_dir() or args.smplx_model is not None or args.motion.suffix == ".json"
    writer.finish(tags, None if silent else args.motion)
  return writer.frames


def _report(figures: dict[str, float], path: Path | None) -> None:
  """Prints what --live measured, and writes it where --json says."""
  shown = "{frames_per_second:.1f} frames/s, latency {latency_median:.3f} s (at most {latency_largest:.3f} s)"
  print(shown.format(**figures), flush=True)
  if path is not None:
    with new_file(path) as place:
      place.write_text(json.dumps(figures, indent=1) + "\n")


def settings_of_body(measures: "BodyMeasures | None", mapped: bool) -> dict[str, Any]:
  """Returns what of the body decides on the pixels: all measures where the motion is mapped, else the widths alone."""
  if measures is None:
    return {}
  if mapped:
    return {"retarget": measures.to_json()}
  return {} if measures.widths is None else {"widths": measures.widths.to_json()}


def measures_of(person: "Person", reference: "Reference | None", motion: Path, mapped: bool) -> "BodyMeasures | None":
  """Returns the measures of the body that makes a motion; None where it stays as it is, or they are not known.

  Args:
    person: who makes the motion.
    reference: another film of her, whose measures are taken first; None for none.
    motion: the video or the prepared folder.
    mapped: whether the motion is to be mapped onto her body.
  """
  from anchor_jax.motion.keypoints import is_keypoints
  from anchor_jax.motion.sidecar import has_sidecar

  if (motion.is_dir() and not is_keypoints(motion)) or has_sidecar(motion):
    return None
  measures = person.measures if reference is None or reference.measures is None else reference.measures
  if measures is None and mapped:
    print("her body's measures are not known, so the motion keeps its own: prepare her videos again, then train again")
  return measures


def before_background(
  args: argparse.Namespace, person: "Person", reference: "Reference | None", motion: "Motion", start: int = 0
) -> "tuple[Motion, Callable[[Any], Any]]":
  """Returns the motion to animate once, and what puts each of its frames, from `start` on, before --background."""
  if not args.background:
    return motion, lambda frame: frame
  from anchor_jax.appearance.backdrop import Backdrop

  appearance = None if reference is None else reference.dense_appearance
  backdrop = Backdrop(args.background, appearance or person.body.dense_appearance, start)
  return backdrop.watch(motion), backdrop.behind


def make_mesh(flag: str) -> Any:
  """Returns the mesh that --mesh asks for; without the flag all devices share the windows, None where there is one."""
  import jax

  from anchor_jax import parallel

  shape = mesh_shape(flag) or (jax.device_count(), 1)
  return None if shape == (1, 1) else parallel.sampling_mesh(*shape)


def write_preview(person: "Person", motion: "Motion", reference: "Reference | None", args: argparse.Namespace) -> None:
  """Writes a short motion to FILE.preview.mp4, and prints where."""
  from anchor_jax.motion.video import write_video

  path = partial_path(args.output, "preview")
  motion, placed = before_background(args, person, reference, motion)
  frames = (watermarked(placed(frame), args.watermark) for frame in person.animate(motion, reference, args.seed))
  write_video(
    path, frames, motion.fps, metadata={"comment": "synthetic: a preview"}, total=motion.length, progress="preview"
  )
  print(f"the first second is in {path}", flush=True)


def watermarked(frame: Any, text: str) -> Any:
  """Returns the frame (uint8 [H W 3]) with a text in its lower left corner, light on a dark bar; "" changes nothing."""
  if not text:
    return frame
  import cv2

  frame, height, font = frame.copy(), frame.shape[0], cv2.FONT_HERSHEY_SIMPLEX
  scale = max(0.35, height / 800)
  (width, tall), below = cv2.getTextSize(text, font, scale, 1)
  cv2.rectangle(frame, (0, height - tall - below - 4), (width + 6, height), (20, 20, 20), -1)
  cv2.putText(frame, text, (3, height - below - 2), font, scale, (235, 235, 235), 1, cv2.LINE_AA)
  return frame


def settings_of(person: "Person", args: argparse.Namespace, fps: float) -> dict[str, Any]:
  """Returns everything that the frames depend on, for the metadata of the file and for --resume."""
  body, head = person.body, person.head
  return {
    "synthetic": True,
    "made_by": f"anchor_jax {importlib.metadata.version('anchor_jax')}",
    "checkpoint": args.checkpoint.resolve().name,
    "motion": args.motion.name,
    **({} if args.smplx_model is None else {"smplx_model": args.smplx_model.name}),
    **({} if args.person_at is None else {"person_at": args.person_at}),
    "appearance": args.appearance.name if args.appearance else None,
    "seed": args.seed,
    "fps": fps,
    "watermark": args.watermark,
    **({} if args.decoder == "exact" else {"decoder": Path(args.decoder).name}),
    **({} if args.attended_frames is None else {"attended_frames": args.attended_frames}),
    **({"background": Path(args.background).name} if args.background else {}),
    "body": {"step": body.step, **dataclasses.asdict(body.sample)},
    "head": head and {"step": head.step, **dataclasses.asdict(head.sample)},
  }


@command
def main() -> None:
  """The command line."""
  args = parse()
  count = generate(args)
  print(f"wrote {args.output}: {count} frames")


if __name__ == "__main__":
  main()
