r"""Compares generated frames with the true ones, alongside baselines that need no network.

Example:
  python -m anchor_jax.evaluate --generated=runs/ana/held_out.mp4 --truth=data/ana_held_out --training=data/ana \
    --output=runs/ana/report.json --page=runs/ana/report.html
  python -m anchor_jax.evaluate --compare runs/ana/report.json runs/ana_longer/report.json

PSNR (dB), SSIM, flicker (gray levels) and sharpness (gradient energy relative to the truth's) of the person, the face
and, with surface maps, the hands. Baselines: the mean training frame; for each frame the training frame with the
nearest pose render; and the texture alone, looked up in the training film for the true pose. Masks are used here only;
`generate` never reads them.

LPIPS, FID, FVD and CLIP similarity of full frames need networks whose weights you supply; docs/evaluation.md describes
the protocols and the files.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from anchor_jax.body.charts import hands_mask
from anchor_jax.core.cli import Parser, command, make_callable, say
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.data.sources import Source
from anchor_jax.evaluation.baselines import Baselines, has_surface
from anchor_jax.evaluation.fidelity import MotionComparison
from anchor_jax.evaluation.measure import NETWORKS, Measure, open_measures
from anchor_jax.evaluation.metrics import Flow, FlowFinder, VideoFigures, ssim_map
from anchor_jax.evaluation.page import ComparisonPage, is_page
from anchor_jax.evaluation.results import append_results, in_checkout, record_flag, report_figures, row_of
from anchor_jax.evaluation.tables import REGIONS, comparison, head_advice, is_report, read_reports, save_report, summary
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import check_output_file, new_file, prepare_parent, refuse_overwriting
from anchor_jax.landmarks.networks.files import LANDMARK_MODELS
from anchor_jax.video.read import probe, read_frames

Figures = dict[str, dict[str, VideoFigures]]  # by region, then by contender
Frames = Iterable[UInt8[NdArray, "H W 3"]]


def evaluate(
  generated: Frames | str | os.PathLike,
  truth: Source | str | os.PathLike,
  training: Source | str | os.PathLike,
  without_head: Frames | str | os.PathLike | None = None,
  page: ComparisonPage | None = None,
  motion: MotionComparison | None = None,
  measures: Sequence[Measure] = (),
) -> dict:
  """Returns the report: PSNR (dB), SSIM, flicker (gray levels) and sharpness of each contender, by region.

  Regions are "person", "face", "hands" and "whole" (the full frame); regions without a pixel in any frame are missing,
  such as the hands if the truth has no surface maps. Frames are read one at a time, so memory does not grow with the
  length of the videos. If the head model lowers the face's PSNR, "advice" says so and what to do.

  Args:
    generated: a video file, or frames (uint8 [H W 3]), in the order of the truth's first video.
    truth: a prepared folder, or its records.
    training: the prepared folder that the person was trained on, or its records; for the baselines.
    without_head: the same frames before the head model repainted the faces.
    page: receives every generated frame.
    motion: receives every generated frame; the report then has "motion" (see `compare_tracks`).
    measures: receive every frame of every contender. Their figures are added to those of their region, and "measures"
      in the report describes how each was taken.

  Raises:
    UserError: there are more generated frames than true ones, frames of another size, or nothing to compare.
  """
  truth, training = (x if isinstance(x, Source) else open_prepared(x) for x in (truth, training))
  filmed = int(np.sum(truth.videos == truth.videos[0]))
  videos = {"generated": generated} | ({} if without_head is None else {"generated_without_head": without_head})
  opened = {name: _open(video, filmed) for name, video in videos.items()}
  figures: Figures = {region: {} for region in REGIONS}
  flow, baselines = FlowFinder(), None
  for number, images in enumerate(_in_step({name: frames for name, (_, frames) in opened.items()})):
    record = _read_truth(truth, number)
    _check_sizes(images, record["frame"])
    if baselines is None:  # slow to compute, so only once the first frame has passed the checks
      baselines = Baselines(truth, training, max(count for count, _ in opened.values()))
    images |= baselines.next(record)
    of_frame = _compare(figures, images, record, flow.next(record["frame"]))
    if page is not None:
      page.add(images["generated"], record, of_frame["generated"])
    if motion is not None:
      motion.add(images["generated"], record["frame"])
    for measure in measures:
      measure.add(images, record)
  return {"frames": number + 1, "training_frames": len(training), **_report(figures, motion, measures)}


def _report(figures: Figures, motion: MotionComparison | None, measures: Sequence[Measure]) -> dict:
  """The report of what was measured, without the numbers of frames."""
  report: dict = {}
  if motion is not None:
    report["motion"] = {
      part: {name: round(value, 4) for name, value in of_part.items()} for part, of_part in motion.figures().items()
    }
    if motion.model != "mediapipe":
      report["landmarks"] = motion.model
  for region, contenders in figures.items():
    if all(contender.has_pixels for contender in contenders.values()):
      report[region] = {
        name: {figure: round(value, 4) for figure, value in contender.figures().items()}
        for name, contender in contenders.items()
      }
  for measure in measures:
    for name, value in measure.figures().items():
      if measure.region in report:
        report[measure.region][name][measure.name] = round(value, 4)
  if measures:
    report["measures"] = {measure.name: measure.details() for measure in measures}
  if advice := head_advice(report):
    report["advice"] = [advice]
  beats = {region: _beats_baselines(report[region]) for region in REGIONS if region in report}
  return report | {"beats_both_baselines": beats.get("person", False), "beats_both_baselines_in": beats}


def _beats_baselines(contenders: dict[str, dict[str, float]]) -> bool:
  """Whether PSNR and SSIM are higher than those of the mean frame and the nearest-pose frame."""
  baselines = [contenders["mean_training_frame"], contenders["nearest_pose_training_frame"]]
  return all(
    contenders["generated"][figure] > baseline[figure] for figure in ("psnr", "ssim") for baseline in baselines
  )


def _read_truth(truth: Source, number: int) -> dict[str, NdArray]:
  """A true frame, the masks of all regions and, if known, the surface map."""
  known = has_surface(truth)
  record = truth.read(number, ("frame", "pose", "person_mask", "face_mask", *("surface",) * known))
  # The pose's solids may be wider than the person's hands.
  hands = hands_mask(record["surface"])[..., None] if known else np.zeros_like(record["person_mask"])
  masks = {"hands_mask": np.minimum(hands, record["person_mask"]), "whole_mask": np.full_like(hands, 255)}
  cameras = truth.cameras if isinstance(truth, PreparedSource) else None
  return {**record, **masks, **({} if cameras is None else {"camera": cameras[number]})}


def _check_sizes(images: dict[str, NdArray], frame: NdArray) -> None:
  for name, image in images.items():
    if image.shape != frame.shape:
      raise UserError(
        f"{name.replace('_', ' ')} frames are {image.shape[1]}x{image.shape[0]} pixels and true ones"
        f" {frame.shape[1]}x{frame.shape[0]}"
      )


def _open(video: Frames | str | os.PathLike, filmed: int) -> tuple[int, Iterator[UInt8[NdArray, "H W 3"]]]:
  """An upper bound on the number of frames, and the frames of a video or an iterable.

  If the length is known, refuses more than were filmed before reading any.
  """
  if isinstance(video, str | os.PathLike):
    count, frames = probe(video).frames, read_frames(video)
  else:
    count, frames = len(video) if isinstance(video, np.ndarray | list | tuple) else filmed, iter(video)
  refusal = "there are {} generated frames and only {} true ones: generate from the same motion"
  if count > filmed:
    raise UserError(refusal.format(count, filmed))

  def checked() -> Iterator[UInt8[NdArray, "H W 3"]]:
    for number, frame in enumerate(frames):
      if number == filmed:
        raise UserError(refusal.format(f"more than {filmed}", filmed))
      yield frame

  return count, checked()


def _in_step(videos: dict[str, Iterator]) -> Iterator[dict[str, NdArray]]:
  """The next frame of each video; all must end at the same time."""
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
  """Adds a frame to the figures, and returns its own figures, by contender, then by region."""
  of_frame: dict[str, dict[str, dict[str, float]]] = {}
  for name, image in images.items():
    similarity = ssim_map(image, record["frame"])
    for region, mask in REGIONS.items():
      contender = figures[region].setdefault(name, VideoFigures())
      of_region = contender.add(image, record["frame"], record[mask], flow, similarity)
      of_frame.setdefault(name, {})[region] = of_region
  return of_frame


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.evaluate", __doc__)
  parser.add_argument("--generated", type=Path, metavar="VIDEO", help="the video that `generate` wrote")
  parser.add_argument("--truth", type=Path, metavar="DIR", help="prepared folder of the true video")
  parser.add_argument("--training", type=Path, metavar="DIR", help="prepared folder that the person was trained on")
  parser.add_argument("--without-head", type=Path, metavar="VIDEO", help="the same video, generated with --no-head")
  parser.add_argument("--output", type=Path, metavar="FILE.json", help="writes all figures")
  parser.add_argument("--page", type=Path, metavar="FILE.html", help="writes a page: video, curves, worst frames")
  parser.add_argument(
    "--compare", type=Path, nargs="+", metavar="FILE.json", help="only print these reports as one table"
  )
  parser.add_argument(
    "--landmarks",
    nargs="?",
    const="mediapipe",
    metavar="MODEL",
    help=f"also compares the motion, with the landmark model: {', '.join(LANDMARK_MODELS)} (default mediapipe)",
  )
  parser.add_argument("--identity", action="store_true", help="also compares the faces (needs the extra identity)")
  for name, network in NETWORKS.items():
    parser.add_argument(f"--{name}", type=Path, metavar="DIR" if name == "clip" else "FILE", help=network)
  record_flag(parser, always=False)
  args = parser.parse_args()
  if args.compare:
    say(comparison(read_reports(args.compare)))
    return
  if missing := [name for name in ("generated", "truth", "training", "output") if getattr(args, name) is None]:
    parser.error(f"give --{', --'.join(missing)}, or --compare")
  if args.record == "" and not in_checkout():
    parser.error("name the file that --record appends to: --record=FILE.jsonl")
  files = {name: file for name in NETWORKS if (file := getattr(args, name)) is not None}
  inputs = (args.generated, args.truth, args.training, args.without_head, *files.values())
  outputs = [("--output", args.output, ".json", is_report), ("--page", args.page, ".html", is_page)]
  with contextlib.ExitStack() as stack:
    for flag, output, suffix, may_replace in outputs if args.page is not None else outputs[:1]:  # before any work
      refuse_overwriting(output, [path for path in inputs if path is not None])
      check_output_file(flag, output, (suffix,), may_replace)
      prepare_parent(output)
      stack.enter_context(locked(output))
    truth, training = open_prepared(args.truth), open_prepared(args.training)
    fps = probe(args.generated).fps
    page = None if args.page is None else stack.enter_context(ComparisonPage(fps))
    motion = stack.enter_context(MotionComparison(fps, args.landmarks)) if args.landmarks else None
    measures = open_measures(files, args.identity)
    report = evaluate(args.generated, truth, training, args.without_head, page, motion, measures)
    if args.page is not None and page is not None:
      with new_file(args.page) as place:
        place.write_text(page.text(report))
    save_report(report, args.output)
    if args.record is not None:
      append_results(report_figures(report, f"evaluate/{row_of(args.generated)}"), args.record or None)
  say(summary(report))


make_callable(__name__)  # so that anchor_jax.evaluate(...) works after `import anchor_jax.evaluate` too

if __name__ == "__main__":
  main()
