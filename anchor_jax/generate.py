"""Makes a video of a trained person that follows a motion, of any length.

Example:
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --output=ana_dances.mp4

The checkpoint is a --workdir of training, a folder of adapters or of diffusers models, or "studio", the shipped weights
(with --appearance). The motion is a prepared folder, or a video: its poses come from its sidecar or else from the
landmark model, and its sound is kept. --appearance is a picture of the person, or a prepared folder, and replaces the
reference kept from training. A prepared folder also gives networks that take it (config.data.pose_channels) texture and
room: other clothes, or a person straight after `prepare` (--checkpoint=studio). SMPL-X parameters as SHOW and TalkSHOW
write them (.npz, .npy, .pkl) are a motion too, with --smplx-model=SMPLX_NEUTRAL.npz (docs/motions.md).

The motion of another person's video is mapped onto her own body and her place in the picture: shoulders, arms, hands,
head. --no-retarget leaves it as it is. Prepared folders and sidecars, as the studio's videos have, are always left as
they are. Her measures are known where she was prepared from videos without sidecars. Of several people in a video the
largest is followed, or the one at --person-at=0.3,0.4 (shares of the picture, or pixels) when it begins.

--background puts her before a picture, a video or plain green instead of her room; with --background=transparent and
--output=FILE.webm (for browsers) or FILE.mov (for editors) the room is left out, and so is the sound.

With --live --motion=camera it follows whoever is before the camera (camera:1 is the second one, camera:FILM a film that
plays as one), until Ctrl-C, --frames or q in the window of --show; docs/live.md has more.

While it runs, ana_dances.partial.mp4 plays as far as it got. Stopped for whatever reason, the same command with
--resume goes on from there.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor_jax.core.cli import command, mesh_shape, say
from anchor_jax.files.inputs import has_fields
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import check_output_file, new_file, partial_path, prepare_parent, refuse_overwriting
from anchor_jax.files.shipped import folder_of
from anchor_jax.inference.flags import parse_flags, sampling_changes

if TYPE_CHECKING:
  from collections.abc import Callable

  from anchor_jax.inference.person import Person
  from anchor_jax.inference.reference import Reference
  from anchor_jax.landmarks.measures import BodyMeasures
  from anchor_jax.motion.frames import Motion


def parse() -> argparse.Namespace:
  """Returns the flags, checked as far as they can be without reading a file."""
  return parse_flags(__doc__)


def generate(args: argparse.Namespace) -> int:
  """Writes the video; returns its number of frames."""
  filmed = args.camera if isinstance(args.camera, Path) else None
  given = filter(None, [args.appearance, args.smplx_model, filmed])
  inputs = [
    *([args.motion] if args.camera is None else []),
    *(folder_of(args.checkpoint) / part for part in ("body", "head")),
    *given,
  ]
  if args.background:
    from anchor_jax.inference.backgrounds import check_background

    check_background(args.background)
    inputs.append(Path(args.background))
  changes = sampling_changes(args)
  with contextlib.ExitStack() as stack:
    if args.json is not None:
      refuse_overwriting(args.json, inputs)
      check_output_file("--json", args.json, (".json",), is_timing)
    if args.output is not None:
      refuse_overwriting(args.output, inputs)
      prepare_parent(args.output)
      check_output_file("--output", args.output, (".mp4", ".webm", ".mov"), is_synthetic)
      stack.enter_context(locked(args.output))
    return _generate(args, changes)


def _generate(args: argparse.Namespace, changes: dict[str, Any]) -> int:
  # JAX takes seconds to import: everything before does without it.
  from tqdm import tqdm

  from anchor_jax.core.runtime import enable_compilation_cache
  from anchor_jax.inference.motions import check_motion, read_motion
  from anchor_jax.inference.person import load
  from anchor_jax.inference.reference import read_reference
  from anchor_jax.landmarks.mediapipe import require_mediapipe
  from anchor_jax.store.weights import parts_in
  from anchor_jax.video.camera import open_camera
  from anchor_jax.video.resumable import ResumableWriter
  from anchor_jax.video.transparent import TransparentWriter

  enable_compilation_cache()
  parts_in(args.checkpoint)
  # a wrong path must not cost the seconds that reading a person takes
  camera = None
  if args.camera is None:
    check_motion(args.motion, args.fps, args.smplx_model, args.person_at)
  else:
    require_mediapipe(args.motion)
    camera = open_camera(args.camera, args.fps)
  reference = None if args.appearance is None else read_reference(args.appearance)
  mesh = make_mesh(args.mesh)
  head, step = not args.no_head, args.checkpoint_step
  person = load(args.checkpoint, step=step, base=args.base, head=head).with_sampling(**changes)
  person = person.with_decoder(args.decoder)
  if args.attended_frames is not None:
    person = person.with_attended_frames(args.attended_frames)
  measures = measures_of(person, reference, None if camera else args.motion, not args.no_retarget)
  tags = {"title": f"synthetic video of {args.checkpoint.resolve().name}", "synthetic": "true"}
  if camera is not None:
    from anchor_jax.inference.camera import film

    settings = settings_of(person, args, camera.fps) | settings_of_body(measures, not args.no_retarget)
    marked = functools.partial(watermarked, text=args.watermark)
    count, timing = film(args, camera, person, reference, measures, settings, tags, marked)
    _report(timing.to_json(), args.json)
    return count
  options = {"frames": args.frames, "fps": args.fps, "video": args.video, "measures": measures}
  options |= {"mapped": not args.no_retarget, "smplx_model": args.smplx_model, "person_at": args.person_at}
  motion = read_motion(args.motion, size=person.size, **options)
  settings = settings_of(person, args, motion.fps) | settings_of_body(measures, not args.no_retarget)
  assert args.output is not None, "only a camera goes without"
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
      from anchor_jax.inference.live import play

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


def is_synthetic(path: Path) -> bool:
  """Whether a video says that it was generated, as those of `generate` do: no other is replaced."""
  import av

  try:
    with av.open(str(path)) as opened:
      return any("synthetic" in text for text in opened.metadata.values())
  except (av.error.FFmpegError, ValueError):
    return False


def is_timing(path: Path) -> bool:
  """Whether a file holds what --json writes."""
  return has_fields(path, "frames_per_second", "latency_median")


def _report(figures: dict[str, float], path: Path | None) -> None:
  """Prints what --live measured, and writes it where --json says."""
  shown = "{frames_per_second:.1f} frames/s, latency {latency_median:.3f} s (at most {latency_largest:.3f} s)"
  say(shown.format(**figures), flush=True)
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


def measures_of(
  person: "Person", reference: "Reference | None", motion: Path | None, mapped: bool
) -> "BodyMeasures | None":
  """Returns the measures of the body that makes a motion; None where it stays as it is, or they are not known.

  Args:
    person: who makes the motion.
    reference: another film of her, whose measures are taken first; None for none.
    motion: the video or the prepared folder; None for a camera.
    mapped: whether the motion is to be mapped onto her body.
  """
  from anchor_jax.landmarks.sidecar import has_sidecar
  from anchor_jax.motion.keypoints import is_keypoints

  if motion is not None and ((motion.is_dir() and not is_keypoints(motion)) or has_sidecar(motion)):
    return None
  measures = person.measures if reference is None or reference.measures is None else reference.measures
  if measures is None and mapped:
    say("her body's measures are not known, so the motion keeps its own: prepare her videos again, then train again")
  return measures


def before_background(
  args: argparse.Namespace, person: "Person", reference: "Reference | None", motion: "Motion", start: int = 0
) -> "tuple[Motion, Callable[[Any], Any]]":
  """Returns the motion to animate once, and what puts each of its frames, from `start` on, before --background."""
  if not args.background:
    return motion, lambda frame: frame
  from anchor_jax.inference.backdrop import Backdrop

  texture = None if reference is None else reference.texture
  backdrop = Backdrop(args.background, texture or person.body.texture, start)
  return backdrop.watch(motion), backdrop.behind


def make_mesh(flag: str) -> Any:
  """Returns the mesh that --mesh asks for; without the flag all devices share the windows, None where there is one."""
  import jax

  from anchor_jax.core import sharding

  shape = mesh_shape(flag) or (jax.device_count(), 1)
  return None if shape == (1, 1) else sharding.sampling_mesh(*shape)


def write_preview(person: "Person", motion: "Motion", reference: "Reference | None", args: argparse.Namespace) -> None:
  """Writes a short motion to FILE.preview.mp4, and prints where."""
  from anchor_jax.video.write import write_video

  assert args.output is not None
  path = partial_path(args.output, "preview")
  motion, placed = before_background(args, person, reference, motion)
  frames = (watermarked(placed(frame), args.watermark) for frame in person.animate(motion, reference, args.seed))
  write_video(
    path, frames, motion.fps, metadata={"comment": "synthetic: a preview"}, total=motion.length, progress="preview"
  )
  say(f"the first second is in {path}", flush=True)


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
  if args.output is not None:
    say(f"wrote {args.output}: {count} frames")


if __name__ == "__main__":
  main()
