"""Generates a video of a trained person that follows a motion, of any length.

Example:
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --output=ana_dances.mp4

The checkpoint is a --workdir of training, a folder of adapters or of diffusers models, or "studio", the shipped weights
(with --appearance). The motion is a prepared folder, or a video: its poses come from its sidecar or else from the
landmark model (--landmarks=mediapipe-heavy is larger and slower), and its sound is copied. --appearance is a picture of
the person, or a prepared folder, and replaces the reference saved in training. A prepared folder also provides the
texture, for networks that use one (config.data.pose_channels): other clothes, or a person straight after `prepare`
(--checkpoint=studio). SMPL-X parameters of SHOW and TalkSHOW (.npz, .npy, .pkl) are a motion too, with
--smplx-model=SMPLX_NEUTRAL.npz (docs/motions.md).

The motion of another person's video is mapped onto the trained person's body and place in the picture: shoulders, arms,
hands, head. --no-retarget turns that off. Prepared folders and sidecars, such as those of studio videos, are never
mapped. The body measures are known if the person was prepared from videos without sidecars. If a video shows several
people, the largest is followed, or the one at --person-at=0.3,0.4 (fractions of the picture, or pixels) in the first
frame.

While nobody is seen in the video (title cards, cut-aways, the person leaves), the person rests; --skip-empty leaves
those frames out, and cuts the same stretches out of the sound. Arms that it does not show rest, too (docs/films.md).

Of a motion whose camera moves, the movement is taken out and the room stands still; --camera=film keeps it, and shows
the room as that camera does. That is also how a generated video compares with a held-out part of a film from the hand.

--size=WxH makes frames of another size than the person's own: the person is as large, with more of the room around, or
less. --frame=film puts the frame back into the full picture of the person's film, at the film's resolution, if that was
larger than the frame. docs/frames.md has what to expect of both.

--background puts the person in front of a picture, a video or plain green; with --background=transparent and
--output=FILE.webm (for browsers) or FILE.mov (for editors) the background is cut out, and the sound is left out.

With --live --motion=camera the person follows whoever is in front of the camera (camera:1 is the second camera,
camera:FILM uses a film as one), until Ctrl-C, --frames or q in the window of --show; see docs/live.md.

While it runs, ana_dances.partial.mp4 is a playable video of the frames so far. After an interruption, the same command
with --resume continues it.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor_jax.core.cli import command, mesh_shape, say
from anchor_jax.files.inputs import has_fields
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import check_output_file, new_file, partial_path, prepare_parent, refuse_overwriting
from anchor_jax.files.shipped import folder_of
from anchor_jax.inference.flags import parse_flags, sampling_changes

if TYPE_CHECKING:
  from anchor_jax.inference.live import Timing
  from anchor_jax.inference.person import Person
  from anchor_jax.inference.request import Request
  from anchor_jax.motion.frames import Motion


def parse() -> argparse.Namespace:
  """Returns the flags, checked as far as possible without reading files."""
  return parse_flags(__doc__)


def generate(args: argparse.Namespace) -> int:
  """Writes the video; returns its number of frames."""
  background = None
  if args.background:
    from anchor_jax.inference.backgrounds import open_background

    background = open_background(args.background)
  sampling = sampling_changes(args)
  with claimed_outputs(args):
    # Everything above is refused without the seconds that importing JAX takes.
    from anchor_jax.core.runtime import enable_compilation_cache
    from anchor_jax.inference.request import in_size, load_person, open_request

    enable_compilation_cache()
    request = open_request(args, sampling, background)
    mesh = sampling_mesh_of(args.mesh)
    request, person = in_size(request, load_person(request))
    return follow_camera(request, person) if request.camera else follow_motion(request, person, mesh)


@contextlib.contextmanager
def claimed_outputs(args: argparse.Namespace) -> Iterator[None]:
  """Checks that the outputs may be written, and locks the video.

  Raises:
    UserError: an output is also an input, can't be written, or is a file of another kind.
  """
  film = args.camera if isinstance(args.camera, Path) else None
  motion = args.motion if args.camera is None else None
  background = Path(args.background) if args.background else None
  parts = [folder_of(args.checkpoint) / part for part in ("body", "head")]
  inputs = [path for path in (motion, *parts, args.appearance, args.smplx_model, film, background) if path]
  with contextlib.ExitStack() as stack:
    if args.json is not None:
      refuse_overwriting(args.json, inputs)
      check_output_file("--json", args.json, (".json",), is_timing)
    if args.output is not None:
      refuse_overwriting(args.output, inputs)
      prepare_parent(args.output)
      check_output_file("--output", args.output, (".mp4", ".webm", ".mov"), is_synthetic)
      stack.enter_context(locked(args.output))
    yield


def follow_camera(request: "Request", person: "Person") -> int:
  """Generates live frames from a camera; returns their number."""
  from anchor_jax.inference.camera import animate_camera

  count, timing = animate_camera(request, person, lambda frame: watermarked(frame, request.args.watermark))
  report_timing(timing, request.args.json)
  return count


def follow_motion(request: "Request", person: "Person", mesh: Any) -> int:
  """Generates the video of a motion; returns its number of frames."""
  from tqdm import tqdm

  from anchor_jax.inference.request import absence_line, body_measures, frame_settings

  args, opened = request.args, request.motion
  assert opened is not None, "only a camera goes without a motion"
  measures = body_measures(request, person)
  motion = opened.read(person.size, measures, mapped=not args.no_retarget, camera=args.seen_by)
  if absence := absence_line(motion, args.skip_empty):
    say(absence, flush=True)
  motion = motion.without_absent() if args.skip_empty else motion
  settings = frame_settings(request, person, motion.fps, measures, blocks=motion.late is not None)
  writer = open_writer(request, motion.fps, settings)
  if args.preview and not writer.frames:
    preview_first_second(request, person, motion)
  with contextlib.closing(writer):
    start = min(writer.frames, motion.length or writer.frames)
    motion, composite = with_background(request, person, motion, start)
    with tqdm(total=motion.length, initial=start, desc="generate", unit="frame") as bar:

      def write(frame: Any) -> None:
        writer.write(watermarked(composite(frame), args.watermark))
        bar.update()

      if args.live:
        from anchor_jax.inference.live import play

        report_timing(play(person, motion, write, request.reference, args.seed), args.json)
      elif start != motion.length:
        for frame in person.animate(motion, request.reference, args.seed, start, mesh):
          write(frame)
      if motion.late is not None and (absence := absence_line(motion.known(), False)):
        say(absence, flush=True)
      sound = opened.path if opened.has_sound and not args.no_audio else None
      writer.finish(request.tags, sound, motion.stretches)
  return writer.frames


def open_writer(request: "Request", fps: float, settings: dict[str, Any]) -> Any:
  """Returns the writer of the video, resumable or transparent; raises UserError if it can't be written or resumed."""
  from anchor_jax.video.resumable import ResumableWriter
  from anchor_jax.video.transparent import TransparentWriter

  args = request.args
  assert args.output is not None, "only a camera goes without an output"
  if request.background is not None and request.background.transparent:
    return TransparentWriter(args.output, fps, {**request.tags, "comment": json.dumps(settings, sort_keys=True)})
  return ResumableWriter(args.output, fps, settings, args.resume, args.live)


def with_background(
  request: "Request", person: "Person", motion: "Motion", start: int = 0
) -> "tuple[Motion, Callable[[Any], Any]]":
  """Returns the motion, which can be animated once, and a function that puts other things behind or around its frames.

  The first frame to replace is number `start`.
  """
  if request.background is None and request.args.frame is None:
    return motion, lambda frame: frame
  reference = request.reference
  texture = (None if reference is None else reference.texture) or person.body.texture
  if request.background is None:
    from anchor_jax.inference.film_frame import FilmFrame

    # a picture as reference is no other film
    filmed = None if reference is None or reference.gather is None else reference
    film = person.body.film_plate if filmed is None else filmed.film_plate
    around = FilmFrame(film, texture, person.body.frame_size, start)
    return around.watch(motion), around.around
  from anchor_jax.inference.backdrop import Backdrop

  backdrop = Backdrop(request.background, texture, start)
  return backdrop.watch(motion), backdrop.behind


def preview_first_second(request: "Request", person: "Person", motion: "Motion") -> None:
  """Writes the motion's first second to FILE.preview.mp4, and prints where."""
  from anchor_jax.video.write import write_video

  args = request.args
  path, motion = partial_path(args.output, "preview"), motion.first(max(1, round(motion.fps)))
  watched, composite = with_background(request, person, motion)
  pictures = person.animate(watched, request.reference, args.seed)
  frames = (watermarked(composite(frame), args.watermark) for frame in pictures)
  metadata = {"comment": "synthetic: a preview"}
  write_video(path, frames, motion.fps, metadata=metadata, total=motion.length, progress="preview")
  say(f"the first second is in {path}", flush=True)


def report_timing(timing: "Timing", path: Path | None) -> None:
  """Prints the timing of --live, and writes it to the file of --json."""
  figures = timing.to_json()
  text = "{frames_per_second:.1f} frames/s, latency {latency_median:.3f} s (at most {latency_largest:.3f} s)"
  say(text.format(**figures), flush=True)
  if path is not None:
    with new_file(path) as place:
      place.write_text(json.dumps(figures, indent=1) + "\n")


def sampling_mesh_of(flag: str) -> Any:
  """Returns the mesh of --mesh; without the flag all devices share the windows. None for a single device."""
  import jax

  from anchor_jax.core import sharding

  shape = mesh_shape(flag) or (jax.device_count(), 1)
  return None if shape == (1, 1) else sharding.sampling_mesh(*shape)


def watermarked(frame: Any, text: str) -> Any:
  """Returns the frame (uint8 [H W 3]) with text on a dark bar in its lower left corner; unchanged if the text is ""."""
  if not text:
    return frame
  import cv2

  frame, height, font = frame.copy(), frame.shape[0], cv2.FONT_HERSHEY_SIMPLEX
  scale = max(0.35, height / 800)
  (width, tall), below = cv2.getTextSize(text, font, scale, 1)
  cv2.rectangle(frame, (0, height - tall - below - 4), (width + 6, height), (20, 20, 20), -1)
  cv2.putText(frame, text, (3, height - below - 2), font, scale, (235, 235, 235), 1, cv2.LINE_AA)
  return frame


def is_synthetic(path: Path) -> bool:
  """Whether a video's metadata says that it was generated; `generate` never overwrites other videos."""
  import av

  try:
    with av.open(str(path)) as opened:
      return any("synthetic" in text for text in opened.metadata.values())
  except (av.error.FFmpegError, ValueError):
    return False


def is_timing(path: Path) -> bool:
  """Whether a file holds what --json writes."""
  return has_fields(path, "frames_per_second", "latency_median")


@command
def main() -> None:
  """The command line."""
  args = parse()
  count = generate(args)
  if args.output is not None:
    say(f"wrote {args.output}: {count} frames")


if __name__ == "__main__":
  main()
