r"""Compares generated frames with the true ones, beside baselines that need no network.

Example:
  python -m anchor_jax.evaluate --generated=runs/ana/held_out.mp4 --truth=data/ana_held_out --training=data/ana \
    --output=runs/ana/report.json --page=runs/ana/report.html
  python -m anchor_jax.evaluate --compare runs/ana/report.json runs/ana_longer/report.json

PSNR (dB), SSIM, flicker (grey levels) and sharpness (gradient energy over the truth's) of the person, her face and,
where the folders say where on the body each pixel lies, her hands. Baselines: the mean training frame; for each frame
the training frame whose pose render is nearest; and the texture alone, looked up in the training film for the wanted
pose. Masks are used here only; `generate` never reads them.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from anchor_jax.cli import Parser, command, make_callable
from anchor_jax.data.comparison_page import ComparisonPage
from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.data.sources import Source, read_all
from anchor_jax.errors import UserError
from anchor_jax.files import new_file, prepare_parent, refuse_overwriting
from anchor_jax.metrics import Flow, FlowFinder, VideoFigures
from anchor_jax.motion.fidelity import MotionComparison
from anchor_jax.motion.surface import hands_mask
from anchor_jax.motion.video import probe, read_frames
from anchor_jax.shapes import Int, NdArray, UInt8

Figures = dict[str, dict[str, VideoFigures]]  # by region, then by name of the contender
Frames = Iterable[UInt8[NdArray, "H W 3"]]
_REGIONS = {"person": "person_mask", "face": "face_mask", "hands": "hands_mask"}
_BLOCK_BYTES = 2**28  # of float32 pose renders held at once, of the truth and of the training set each
_LABEL, _COLUMN = 29, 30  # of the table, in characters


def evaluate(
  generated: Frames | str | os.PathLike,
  truth: Source | str | os.PathLike,
  training: Source | str | os.PathLike,
  without_head: Frames | str | os.PathLike | None = None,
  page: ComparisonPage | None = None,
  motion: MotionComparison | None = None,
) -> dict:
  """Returns the report: PSNR (dB), SSIM, flicker (grey levels) and sharpness of each contender, by region.

  Regions are "person", "face" and "hands"; a region without a pixel in any frame is missing, such as the hands where
  the truth has no surface maps. Reads one frame of everything at a time, so memory does not grow with the length of
  the videos.

  Args:
    generated: a video file, or frames (uint8 [H W 3]), in the order of the truth's first video.
    truth: a prepared folder, or its records.
    training: the prepared folder that the person was trained on, or its records; for the baselines.
    without_head: the same frames before the head model repainted the faces.
    page: takes in every generated frame.
    motion: likewise; the report then has "motion", of `fidelity`.

  Raises:
    UserError: more generated frames than true ones, frames of another size, or nothing to compare.
  """
  truth, training = (x if isinstance(x, Source) else open_prepared(x) for x in (truth, training))
  filmed = int(np.sum(truth.videos == truth.videos[0]))
  videos = {
    "generated": _read(generated, filmed),
    **({} if without_head is None else {"generated_without_head": _read(without_head, filmed)}),
  }
  figures: Figures = {region: {} for region in _REGIONS}
  flow = FlowFinder()
  for count, images in enumerate(_together(videos)):
    record = _read_truth(truth, count)
    alone = _compare(figures, images, record, flow.next(record["frame"]))
    if page is not None:
      page.add(images["generated"], record, alone["generated"])
    if motion is not None:
      motion.add(images["generated"], record["frame"])
  mean, nearest = mean_frame(training), nearest_poses(truth, training, range(count + 1))
  paint = texture_alone(truth, training, mean)
  flow = FlowFinder()
  for number, known in enumerate(nearest):
    record = _read_truth(truth, number)
    images = {"mean_training_frame": mean}
    images["nearest_pose_training_frame"] = training.read(int(known), ("frame",))["frame"]
    if paint is not None:
      images["texture_alone"] = paint(record["surface"])
    _compare(figures, images, record, flow.next(record["frame"]))
  report: dict = {"frames": count + 1, "training_frames": len(training)}
  if motion is not None:
    report["motion"] = {
      part: {name: round(value, 4) for name, value in found.items()} for part, found in motion.figures().items()
    }
  for region, contenders in figures.items():
    if all(found.seen for found in contenders.values()):
      report[region] = {
        name: {figure: round(value, 4) for figure, value in found.figures().items()}
        for name, found in contenders.items()
      }
  beats = {region: _beats_baselines(report[region]) for region in _REGIONS if region in report}
  return report | {"beats_both_baselines": beats.get("person", False), "beats_both_baselines_in": beats}


def _beats_baselines(contenders: dict[str, dict[str, float]]) -> bool:
  """Whether PSNR and SSIM are above those of the mean frame and of the nearest one."""
  baselines = [contenders["mean_training_frame"], contenders["nearest_pose_training_frame"]]
  return all(
    contenders["generated"][figure] > baseline[figure] for figure in ("psnr", "ssim") for baseline in baselines
  )


def texture_alone(
  truth: Source, training: Source, unknown: UInt8[NdArray, "H W 3"]
) -> Callable[[UInt8[NdArray, "H W 3"]], UInt8[NdArray, "H W 3"]] | None:
  """Returns what makes the picture of a surface map from the texture, key frames and room of the training film.

  None where either folder has no surface maps, or where their pictures are of different sizes.

  Args:
    truth, training: as `evaluate` takes them.
    unknown: shown where the film tells nothing.
  """
  if not (isinstance(training, PreparedSource) and has_surface(truth) and has_surface(training)):
    return None
  if truth.read(0, ("surface",))["surface"].shape != unknown.shape:
    return None
  # Nothing else here needs JAX, which takes seconds to import.
  import jax

  from anchor_jax.data.appearances import person_appearance
  from anchor_jax.models.composite import composite
  from anchor_jax.models.conditioning import Conditioning, make_conditioning
  from anchor_jax.shapes import Array

  person = int(training.people[np.flatnonzero(training.has_surface)[0]])
  conditioning = make_conditioning("full", person_appearance(training, person))

  @jax.jit
  def made(conditioning: Conditioning, surface: Array) -> Array:
    return composite(conditioning(surface[None]))[0]

  def paint(surface: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W 3"]:
    picture = np.asarray(made(conditioning, surface))
    return np.where(picture[..., 3:] > 0, np.round(255 * picture[..., :3]).astype(np.uint8), unknown)

  return paint


def has_surface(source: Source) -> bool:
  """Whether the surface maps of some records are known."""
  return isinstance(source, PreparedSource) and bool(source.has_surface.any())


def _read_truth(truth: Source, number: int) -> dict[str, NdArray]:
  """A true frame, the masks of all regions and, where it is known, the surface map."""
  known = has_surface(truth)
  record = truth.read(number, ("frame", "pose", "person_mask", "face_mask", *("surface",) * known))
  # The solids of a pose may be wider than her hands.
  hands = hands_mask(record["surface"])[..., None] if known else np.zeros_like(record["person_mask"])
  return {**record, "hands_mask": np.minimum(hands, record["person_mask"])}


def mean_frame(source: Source) -> UInt8[NdArray, "H W 3"]:
  """The mean of all frames of a source, read one at a time."""
  total: NdArray | None = None
  for record in read_all(source, range(len(source)), ("frame",)):
    total = record["frame"].astype(np.float64) if total is None else total + record["frame"]
  assert total is not None, "a prepared folder has at least one record"
  return np.round(total / len(source)).astype(np.uint8)


def nearest_poses(wanted: Source, known: Source, numbers: Iterable[int]) -> Int[NdArray, " T"]:
  """For each wanted record the number of the known one whose pose render has the smallest squared difference.

  Holds two blocks of renders as float32, of a quarter of a gigabyte each, and reads the known renders once a block.
  """
  numbers = list(numbers)
  size = wanted.read(numbers[0], ("pose",))["pose"].size
  block = max(1, _BLOCK_BYTES // (4 * size))
  found = np.zeros(len(numbers), np.int64)
  for start in range(0, len(numbers), block):
    flat = _stack_poses(wanted, numbers[start : start + block])
    best = np.full(len(flat), np.inf)
    for first in range(0, len(known), block):
      other = _stack_poses(known, range(first, min(first + block, len(known))))
      # The square of the wanted render is the same for all known ones.
      distance = np.square(other).sum(axis=1) - 2 * flat @ other.T
      nearest = distance.argmin(axis=1)
      smallest = distance[np.arange(len(flat)), nearest]
      better = smallest < best
      best = np.where(better, smallest, best)
      found[start : start + block] = np.where(better, first + nearest, found[start : start + block])
  return found


def _stack_poses(source: Source, numbers: Iterable[int]) -> NdArray:
  return np.stack([record["pose"].reshape(-1) for record in read_all(source, numbers, ("pose",))]).astype(np.float32)


def _read(video: Frames | str | os.PathLike, filmed: int) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """The frames of a video or of an iterable; refuses more than were filmed before reading any, where it can."""
  if isinstance(video, str | os.PathLike):
    count, frames = probe(video).frames, read_frames(video)
  else:
    count, frames = len(video) if isinstance(video, np.ndarray | list | tuple) else 0, iter(video)
  refusal = "there are {} generated frames and only {} true ones: generate from the same motion"
  if count > filmed:
    raise UserError(refusal.format(count, filmed))

  def checked() -> Iterator[UInt8[NdArray, "H W 3"]]:
    for number, frame in enumerate(frames):
      if number == filmed:
        raise UserError(refusal.format(f"more than {filmed}", filmed))
      yield frame

  return checked()


def _together(videos: dict[str, Iterator]) -> Iterator[dict[str, NdArray]]:
  """The next frame of each video, until all end at the same time."""
  empty = True
  while True:
    frames = {name: frame for name, video in videos.items() if (frame := next(video, None)) is not None}
    if not frames:
      break
    if len(frames) < len(videos):
      raise UserError("the generated video and the one without the head model have different numbers of frames")
    empty = False
    yield frames
  if empty:
    raise UserError("there is no generated frame to compare")


def _compare(
  figures: Figures, images: dict[str, NdArray], record: dict, flow: Flow | None
) -> dict[str, dict[str, dict[str, float]]]:
  """Adds a frame to the figures, and returns its own: by contender, then by region."""
  alone: dict[str, dict[str, dict[str, float]]] = {}
  for name, image in images.items():
    if image.shape != record["frame"].shape:
      raise UserError(
        f"{name.replace('_', ' ')} frames are {image.shape[1]}x{image.shape[0]} pixels and true ones"
        f" {record['frame'].shape[1]}x{record['frame'].shape[0]}"
      )
    for region, mask in _REGIONS.items():
      figure = figures[region].setdefault(name, VideoFigures())
      alone.setdefault(name, {})[region] = figure.add(image, record["frame"], record[mask], flow)
  return alone


def save_report(report: dict, path: Path) -> None:
  """Writes a report as JSON."""
  with new_file(path) as place:
    place.write_text(json.dumps(report, indent=1) + "\n")


def summary(report: dict) -> str:
  """Returns the figures as a table: a row for each contender, a column for each region."""
  regions = [region for region in _REGIONS if region in report]
  lines = ["".join([f"{'':{_LABEL}}", *(f"{region:<{_COLUMN}}" for region in regions)])]
  lines.append(" " * _LABEL + f"{'PSNR   SSIM  flick. sharp.':<{_COLUMN}}" * len(regions))
  names = {name: None for region in regions for name in report[region]}
  for name in names:
    cells = [_cell(report[region].get(name)) for region in regions]
    lines.append("".join([f"{name.replace('_', ' '):<{_LABEL}}", *(f"{cell:<{_COLUMN}}" for cell in cells)]))
  lines = [line.rstrip() for line in lines]
  face = report.get("face", {})
  if "generated_without_head" in face and face["generated"]["psnr"] < face["generated_without_head"]["psnr"]:
    lines.append("The head model lowers the face's PSNR: generate with --no-head.")
  return "\n".join([*lines, *_motion_lines(report.get("motion", {}))])


def _motion_lines(motion: dict[str, dict[str, float]]) -> list[str]:
  """A line on the landmarks that were found again, where they were looked for."""
  parts = [
    f"{part} {found['error']:.1f} % ({100 * found['found']:.0f} % found)"
    for part, found in motion.items()
    if "error" in found
  ]
  mouth = motion.get("face", {}).get("mouth")
  parts += [] if mouth is None else [f"mouth opening correlates {mouth:.2f}"]
  return [f"Landmarks off by, in shoulder widths: {', '.join(parts)}"] if parts else []


def _cell(figures: dict[str, float] | None) -> str:
  if figures is None:
    return ""
  wanted = (("psnr", "5.2f"), ("ssim", "6.3f"), ("flicker", "6.2f"), ("sharpness", "6.2f"))
  return " ".join(f"{figures[name]:{form}}" if name in figures else f"{'-':>{form[0]}}" for name, form in wanted)


def compare(reports: dict[str, dict]) -> str:
  """Returns a table of several runs: a row for each one's generated frames, a column for each region.

  Args:
    reports: by name, as `evaluate` returns them.
  """
  rows = {}
  for region in _REGIONS:
    found = {name: report[region]["generated"] for name, report in reports.items() if region in report}
    rows |= {region: found} if found else {}
  return summary(rows)


def read_reports(paths: list[Path]) -> dict[str, dict]:
  """Returns reports by the names of their files, and of the folders in which they are where files are named alike.

  Raises:
    UserError: a file is missing or is no report.
  """
  alike = len({path.stem for path in paths}) < len(paths)
  reports = {}
  for path in paths:
    try:
      report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise UserError(f"{path} cannot be read as a report: {error}") from None
    if not (isinstance(report, dict) and "generated" in report.get("person", {})):
      raise UserError(f"{path} is no report: give files that --output of this command wrote")
    reports[f"{path.absolute().parent.name}/{path.stem}" if alike else path.stem] = report
  return reports


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.evaluate", __doc__)
  parser.add_argument("--generated", type=Path, metavar="VIDEO", help="what `generate` wrote")
  parser.add_argument("--truth", type=Path, metavar="DIR", help="prepared folder of the true video")
  parser.add_argument("--training", type=Path, metavar="DIR", help="prepared folder trained on")
  parser.add_argument("--without-head", type=Path, metavar="VIDEO", help="the same with --no-head")
  parser.add_argument("--output", type=Path, metavar="FILE.json", help="all figures")
  parser.add_argument("--page", type=Path, metavar="FILE.html", help="video, curves and the worst frames to look at")
  parser.add_argument(
    "--compare", type=Path, nargs="+", metavar="FILE.json", help="only show such reports in one table"
  )
  parser.add_argument("--landmarks", action="store_true", help="also compare the motion (needs the landmark model)")
  args = parser.parse_args()
  if args.compare:
    print(compare(read_reports(args.compare)))
    return
  if missing := [name for name in ("generated", "truth", "training", "output") if getattr(args, name) is None]:
    parser.error(f"give --{', --'.join(missing)}, or --compare")
  inputs = [path for path in (args.generated, args.truth, args.training, args.without_head) if path is not None]
  for output in filter(None, [args.output, args.page]):
    refuse_overwriting(output, inputs)
    prepare_parent(output)  # a bad path must not cost the work
  with contextlib.ExitStack() as stack:
    truth, training = open_prepared(args.truth), open_prepared(args.training)
    fps = probe(args.generated).fps
    page = None if args.page is None else stack.enter_context(ComparisonPage(fps))
    motion = stack.enter_context(MotionComparison(fps)) if args.landmarks else None
    report = evaluate(args.generated, truth, training, args.without_head, page, motion)
    if args.page is not None and page is not None:
      with new_file(args.page) as place:
        place.write_text(page.text(report))
  save_report(report, args.output)
  print(summary(report))


make_callable(__name__)  # anchor_jax.evaluate(...) is the function, also after `import anchor_jax.evaluate`

if __name__ == "__main__":
  main()
