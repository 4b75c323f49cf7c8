"""Turns videos of a person into a prepared folder, which train reads and generate accepts as a motion.

Example:
  python -m anchor_jax.prepare ana_1.mp4 ana_2.mp4 --output=data/ana

Poses, masks and landmarks come from a video's sidecar (a folder NAME.anchor next to NAME.mp4, as the studio writes it),
or else from the landmark model (install it with `make landmarks`); --landmarks=mediapipe-heavy takes its larger, slower
pose network (`python -m anchor_jax.landmarks --heavy` fetches it). Each shot becomes a clip. Dark and blurred stretches
and those without a person are skipped: report.html in the folder shows which and why, and docs/films.md has the rules.
Of several people the largest is used, or the one at --person-at=0.3,0.4 (shares of the picture, or pixels). Also check
preview.png and appearance.png, which shows the background plate, the key frames and the atlas; whatever the film never
shows is purple. This texture is saved in appearance.safetensors for `generate --appearance`, for up to 4 people per
folder.

--workers=N finds landmarks of several videos in parallel. An interrupted run resumes when the command is repeated.

--beam prepares thousands of films, each of a different person unless --person=NAME is given, with Apache Beam (extra
beam); each film is one shard of the folder. Its value is Beam's own flags, which choose the runner (docs/films.md):
  python -m anchor_jax.prepare films/*.mp4 --output=data/many --beam="--direct_num_workers=4"

--studio writes procedural people for pre-training instead:
  python -m anchor_jax.prepare --studio=1024 --frames=48 --output=data/people

--reference reads the training lists of the paper's own implementation (docs/motions.md):
  python -m anchor_jax.prepare --reference=body_train.json --size=512 --output=data/ana_body
"""

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.cli import Parser, command, make_callable, say
from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.data.records import PreparedSource, build, check_prepared_target, open_prepared
from anchor_jax.data.textures import PICTURE, store_textures, stored_texture, texture_of_prepared, unseen_room
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import partial_path, refuse_overwriting, remove_files
from anchor_jax.films.clips import examine, read_films
from anchor_jax.films.findings import FINDINGS_FILES, examine_all
from anchor_jax.films.full_picture import film_plate
from anchor_jax.films.poses import PosedClip, open_film
from anchor_jax.films.report import REPORT, film_facts, film_lines, film_report
from anchor_jax.landmarks.framing import AutoSize, CropRect, parse_size
from anchor_jax.landmarks.networks.files import landmarks_flag
from anchor_jax.landmarks.people import parse_point
from anchor_jax.landmarks.proportions.evidence import standard_parts
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.texture.background.film_plate import FILM_PLATE, write_film_plate
from anchor_jax.texture.stored import SEEN
from anchor_jax.video.timing import tick_count


def prepare(
  videos: str | os.PathLike | Sequence[str | os.PathLike],
  output: str | os.PathLike,
  *,
  size: int | FrameSize | AutoSize | str = 128,
  person: str | None = None,
  fps: float | int | None = None,
  landmarks: str = "mediapipe",
  like: str | os.PathLike | None = None,
  cut_off: bool = False,
  person_at: tuple[float, float] | None = None,
  part: tuple[float, float] = (0.0, 1.0),
  workers: int = 1,
) -> dict[str, Any]:
  """Prepares videos of one person; returns the content of the folder's meta.json.

  Args:
    videos: a file, or several.
    output: the folder, replaced only on success.
    size: width and height of the frames in pixels, or the side of squares. "auto" or "auto:256" decides: the film's
      shape, cropped to where the person ever is, with about as many pixels as a square of 128 or of the given side.
    person: name of the person; default the folder's name.
    fps: frames per second; default each video's own. Also overrides the rate of a video that claims an implausible one.
    landmarks: the landmark model for videos without a sidecar.
    like: an earlier prepared folder of the same person from the same camera: its crop rectangle is reused, and so are
      its body measures, widths and cloth, so that both folders show the same body.
    cut_off: accept videos with a missing end.
    person_at: a point (x, y) on the person when each film begins, if there are several: shares of the picture's width
      and height if both are at most 1, else pixels; default the largest person.
    part: the part of each video that is used, as shares of its length, such as (0.8, 1) for the last fifth.
    workers: number of processes that find landmarks, each in one video at a time. With several videos, the findings of
      each are saved next to the output until all are done (OUTPUT.looks), so an interrupted call resumes and writes
      the same bytes.

  Raises:
    UserError: a file is missing, empty, cut off or not a video; the landmark model is missing; the output can't be
      written; nobody is at `person_at`; it is given for a video with a sidecar; or the head is outside the frames.
  """
  videos = [videos] if isinstance(videos, str | os.PathLike) else videos
  wanted = parse_size(size) if isinstance(size, str) else size
  wanted = wanted if isinstance(wanted, AutoSize) else FrameSize.of(wanted).check()
  _check_rate(fps)
  if workers < 1:
    raise UserError(f"--workers={workers}: at least 1")
  if not 0 <= part[0] < part[1] <= 1:
    raise UserError(f"--part={part[0]:g}:{part[1]:g}: give two shares of the video's length such as 0:0.8")
  refuse_overwriting(output, [*videos, *([] if like is None else [like])])
  check_prepared_target(output)
  findings_folder = partial_path(output, "looks")
  with locked(output), locked(findings_folder):
    # An earlier folder's crop refers to the full picture, including black bars.
    opened = [open_film(video, landmarks, fps, cut_off, like is not None, person_at) for video in videos]
    infos = [film.info for film in opened]
    total = round(sum(tick_count(info) * (fps or info.fps) / info.fps for info in infos) * (part[1] - part[0]))
    name = person or Path(output).absolute().name
    crop, body = (None, None) if like is None else _crop_and_body(like, wanted)
    if len(opened) == 1:
      findings = [examine(opened[0], progress=True)]
    else:
      findings = examine_all(opened, findings_folder, workers)
    room = None if like is None else _room_of(like, any(found.cameras is not None for found in findings))
    films = read_films(
      opened, findings, size=wanted, person=name, fps=fps, crop=crop, body=body, section=part, room=room
    )
    clips = [clip for film in films for clip in film.clips]
    facts = {"films": film_facts(films)}

    def finish(source: PreparedSource) -> None:
      store_textures(source)
      if (film := film_plate(opened[0], findings[0], films[0], source.size)) is not None:
        write_film_plate(source.folder / FILM_PLATE, film)
      (source.folder / REPORT).write_text(film_report(name, films), encoding="utf-8")

    frame_size = films[0].size
    assert frame_size is not None
    meta = build(clips, output, frame_size, total=total, progress="prepare", facts=facts, finish=finish)
    if len(opened) > 1:
      remove_files(findings_folder, FINDINGS_FILES)
    return meta


def prepare_studio(
  people: int, frames: int, output: str | os.PathLike, *, size: int | FrameSize = 128, fps: float | int | None = None
) -> dict[str, Any]:
  """Prepares procedural people with seeds 0 to people - 1, each with the motion of the same seed.

  Args:
    people: number of people.
    frames: number of frames per person.
    output: the folder.
    size: width and height of the frames in pixels, or the side of squares.
    fps: frames per second; default 5, so that a few frames cover much of a motion.
  """
  from anchor_jax.studio import render_people

  size = _checked(size, fps)
  if people < 1 or frames < 1:
    raise UserError(f"--studio={people} --frames={frames}: both must be at least 1")
  check_prepared_target(output)
  rate = float(fps or 5)
  filmed = render_people(range(people), [number / rate for number in range(frames)], size)
  clips = (PosedClip(f"studio {seed}", f"studio {seed}", rate, film) for seed, film in enumerate(filmed))
  return build(clips, output, size, total=people * frames, progress="studio people", finish=store_textures)


def prepare_reference(
  path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  size: int | FrameSize = 128,
  person: str | None = None,
  fps: float | int | None = None,
) -> dict[str, Any]:
  """Prepares the images in a training list of the paper's own implementation; returns the content of meta.json.

  Args:
    path: body_train.json or head_train.json.
    output: the folder.
    size: width and height of the frames in pixels, or the side of squares.
    person: name of the person, unless the list has one; default the folder's name.
    fps: frame rate of the videos that the images come from; default 30.

  Raises:
    UserError: the list or an image is missing or damaged, or the output can't be written.
  """
  from anchor_jax.films.reference_lists import FPS, read_reference_list

  size = _checked(size, fps)
  refuse_overwriting(output, [path])
  check_prepared_target(output)
  clips, total = read_reference_list(path, size, person or Path(output).absolute().name, fps or FPS)
  return build(clips, output, size, total=total, progress="prepare")


def background_lines(folder: str | os.PathLike) -> list[str]:
  """Returns a line per person with a texture: the share of the background that the films never show."""
  source, lines = open_prepared(folder), []
  for number, name in enumerate(source.meta["people"]):
    texture = stored_texture(source, number)
    if texture is not None:
      unseen, sheet = unseen_room(texture), Path(folder) / PICTURE
      if unseen:
        visible = f"is never visible in {100 * unseen:.1f} % of the picture (purple in {sheet})"
      else:
        visible = f"is visible everywhere (look at {sheet})"
      lines.append(f"the background behind {name} {visible}")
  return lines


def body_lines(folder: str | os.PathLike) -> list[str]:
  """Returns lines about each person's body: parts that the films hardly show, and how far clothes follow the pose."""
  source, lines = open_prepared(folder), []
  for name, body in zip(source.meta["people"], source.measures):
    if body is not None and body.evidence is not None and (parts := standard_parts(body.evidence)):
      lines.append(f"{name}: the films hardly show {', '.join(parts)}: their widths are those of a standard body")
    if body is not None and body.cloth is not None:
      lines.append(f"{name}: {body.cloth.summary()}")
  return lines


def _crop_and_body(folder: str | os.PathLike, size: FrameSize | AutoSize) -> tuple[CropRect, BodyMeasures | None]:
  """The crop rectangle of the first video in a prepared folder, and the body measures of its person, if known."""
  source = open_prepared(folder)
  stored = source.meta["videos"][0]["square"]
  if stored is None:
    raise UserError(f"{folder} was not prepared from a video: leave out --like")
  if isinstance(size, AutoSize):
    size = source.size
  if size.width * source.size.height != size.height * source.size.width:
    raise UserError(
      f"--size={size}: {folder} has frames of {source.size}, in other proportions: leave out --like, or give"
      f" --size={source.size}"
    )
  return CropRect.from_json(stored, size), source.measures[int(source.people[0])]


def _room_of(folder: str | os.PathLike, moves: bool) -> UInt8[NdArray, "H W 4"] | None:
  """RGB and coverage of a prepared folder's background plate, as far as it was seen; None if no camera moves."""
  source = open_prepared(folder)
  if (source.cameras is None and not moves) or not source.has_surface.any():
    return None
  texture = texture_of_prepared(source, int(source.people[0]))
  seen = np.where(texture.plate_coverage == SEEN, SEEN, 0).astype(np.uint8)
  return np.concatenate([texture.plate, seen[..., None]], axis=-1)


def _checked(size: int | FrameSize, fps: float | int | None) -> FrameSize:
  """The size of the frames, if frames can have it and the frame rate is plausible."""
  _check_rate(fps)
  return FrameSize.of(size).check()


def _exact(size: FrameSize | AutoSize) -> FrameSize:
  """The size, if it is not to be decided by a film."""
  if isinstance(size, AutoSize):
    raise UserError("--size=auto is for films of one person: give a square's side, or WIDTHxHEIGHT")
  return size


def _check_rate(fps: float | int | None) -> None:
  if fps is not None and not 0 < fps <= 240:
    raise UserError(f"--fps={fps}: give frames per second above 0, at most 240")


def parse_part(text: str) -> tuple[float, float]:
  """Returns the two shares in a flag such as `0:0.8`. Raises UserError for other texts."""
  try:
    first, last = (float(share) for share in text.split(":"))
  except ValueError:
    raise UserError(f"--part={printable(text)}: give two shares of the video's length such as 0:0.8") from None
  return first, last


def _prepare_many(videos: Sequence[Path], output: Path, beam: str, options: dict[str, Any]) -> dict[str, Any]:
  from anchor_jax.data.beam import prepare_with_beam

  if options.pop("like") is not None or options.pop("workers") != 1 or options.pop("part") != (0.0, 1.0):
    raise UserError(
      "--like, --part and --workers do not work with --beam: leave them out (Beam's flags set the workers)"
    )
  options["size"] = _checked(_exact(options["size"]), options["fps"])
  refuse_overwriting(output, videos)
  meta = prepare_with_beam(videos, output, shlex.split(beam), **options)
  for path, error in meta["left_out"].items():
    say(f"skipped: {error if path in error else f'{path}: {error}'}")
  return meta


@command
def main() -> None:
  """Runs the command line."""
  parser = Parser("anchor_jax.prepare", __doc__)
  parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="mp4, mkv, mov, webm")
  parser.add_argument("--output", type=Path, required=True, metavar="DIR")
  parser.add_argument(
    "--size",
    default="128",
    help="a square's side in pixels, WIDTHxHEIGHT, or auto: the film's shape, cropped to where the person ever is, with"
    " about as many pixels as a square of 128, or of SIDE with auto:SIDE, at most twice as many (default 128)",
  )
  parser.add_argument("--person", metavar="NAME", help="name of the person in the videos (default: the folder's name)")
  parser.add_argument("--fps", type=float, help="frames per second (default: the video's)")
  landmarks_flag(parser, "videos")
  parser.add_argument("--like", type=Path, metavar="DIR", help="reuse crop rectangle and body of an earlier folder")
  parser.add_argument("--cut-off", action="store_true", help="accept videos with a missing end")
  parser.add_argument(
    "--person-at", metavar="X,Y", help="a point on the person when the film begins, if several appear"
  )
  parser.add_argument(
    "--part", default="0:1", metavar="FROM:TO", help="use only this part of each video, such as 0:0.8"
  )
  parser.add_argument("--workers", type=int, default=1, help="processes, each with one video at a time (default 1)")
  parser.add_argument("--beam", metavar="FLAGS", help="prepare thousands of films with Apache Beam, given Beam's flags")
  parser.add_argument("--studio", type=int, metavar="PEOPLE", help="number of procedural people instead of videos")
  parser.add_argument("--reference", type=Path, metavar="FILE", help="body_train.json or head_train.json instead")
  parser.add_argument("--frames", type=int, help="frames per procedural person (default 48)")
  args = parser.parse_args()
  sources = sum([args.studio is not None, bool(args.videos), args.reference is not None])
  if sources != 1:
    hint = "one of them, not both" if sources else "see --help"
    raise UserError(f"name the videos to prepare, or give --studio=PEOPLE or --reference=FILE ({hint})")
  if args.frames is not None and args.studio is None:
    raise UserError("--frames works only with --studio: all frames of a video are prepared")
  started = time.monotonic()
  size = parse_size(args.size)
  if args.reference is not None:
    meta = prepare_reference(args.reference, args.output, size=_exact(size), person=args.person, fps=args.fps)
  elif args.studio is None:
    options = {
      "size": size,
      "person": args.person,
      "fps": args.fps,
      "landmarks": args.landmarks,
      "like": args.like,
      "cut_off": args.cut_off,
      "part": parse_part(args.part),
      "workers": args.workers,
      "person_at": None if args.person_at is None else parse_point(args.person_at),
    }
    if args.beam is None:
      meta = prepare(args.videos, args.output, **options)
    else:
      meta = _prepare_many(args.videos, args.output, args.beam, options)
  else:
    meta = prepare_studio(args.studio, args.frames or 48, args.output, size=_exact(size), fps=args.fps)
  faces = meta["frames"] - len(meta["without_landmarks"])
  say(
    f"prepared {meta['frames']} frames of {len(meta['people'])} {'person' if len(meta['people']) == 1 else 'people'}"
    f" ({faces} with a face) in {time.monotonic() - started:.0f} s; look at {args.output / 'preview.png'}"
  )
  for line in [*film_lines(meta.get("films", ())), *body_lines(args.output), *background_lines(args.output)]:
    say(line)


make_callable(__name__)  # keeps anchor_jax.prepare(...) the function after `import anchor_jax.prepare`

if __name__ == "__main__":  # rendering spawns processes that import this module
  main()
