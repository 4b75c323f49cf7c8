r"""Compares generated frames with the true ones, beside two baselines that need no network.

Example:
  python -m anchor_jax.evaluate --generated=runs/ana/held_out.mp4 --truth=data/ana_held_out --training=data/ana \
    --output=runs/ana/report.json

The figures are over the person's pixels of the truth. Baselines: the mean training frame, and for each frame the
training frame whose pose render is nearest. Masks are used here only; `generate` never reads them.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from anchor_jax.cli import Parser, command, make_callable
from anchor_jax.data.records import open_prepared
from anchor_jax.data.sources import Source, read_all
from anchor_jax.errors import UserError
from anchor_jax.files import new_file, prepare_parent, refuse_overwriting
from anchor_jax.metrics import VideoFigures
from anchor_jax.motion.video import probe, read_frames
from anchor_jax.shapes import Int, NdArray, UInt8

Frames = Iterable[UInt8[NdArray, "H W 3"]]
_REGIONS = {"person": "person_mask", "face": "face_mask"}
_BLOCK_BYTES = 2**28  # of float32 pose renders held at once, of the truth and of the training set each


def evaluate(
  generated: Frames | str | os.PathLike,
  truth: Source | str | os.PathLike,
  training: Source | str | os.PathLike,
  without_head: Frames | str | os.PathLike | None = None,
) -> dict:
  """Returns the report: PSNR (dB), SSIM and flicker (grey levels) of each contender, over the person and the face.

  Reads one frame of everything at a time, so memory does not grow with the length of the videos.

  Args:
    generated: a video file, or frames (uint8 [H W 3]), in the order of the truth's first video.
    truth: a prepared folder, or its records.
    training: the prepared folder that the person was trained on, or its records; for the baselines.
    without_head: the same frames before the head model repainted the faces.

  Raises:
    UserError: more generated frames than true ones, frames of another size, or nothing to compare.
  """
  truth, training = (x if isinstance(x, Source) else open_prepared(x) for x in (truth, training))
  filmed = int(np.sum(truth.videos == truth.videos[0]))
  videos = {
    "generated": _read(generated, filmed),
    **({} if without_head is None else {"generated_without_head": _read(without_head, filmed)}),
  }
  figures: dict[str, dict[str, VideoFigures]] = {region: {} for region in _REGIONS}
  for count, images in enumerate(_together(videos)):
    record = truth.read(count, ("frame", *_REGIONS.values()))
    _compare(figures, images, record)
  mean, nearest = mean_frame(training), nearest_poses(truth, training, range(count + 1))
  for number, known in enumerate(nearest):
    record = truth.read(number, ("frame", *_REGIONS.values()))
    frame = training.read(int(known), ("frame",))["frame"]
    _compare(figures, {"mean_training_frame": mean, "nearest_pose_training_frame": frame}, record)
  report: dict = {"frames": count + 1, "training_frames": len(training)}
  for region, contenders in figures.items():
    report[region] = {
      name: {figure: round(value, 4) for figure, value in found.figures().items()} for name, found in contenders.items()
    }
  person = report["person"]
  baselines = [person["mean_training_frame"], person["nearest_pose_training_frame"]]
  report["beats_both_baselines"] = all(
    person["generated"][figure] > baseline[figure] for figure in ("psnr", "ssim") for baseline in baselines
  )
  return report


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


def _compare(figures: dict[str, dict[str, VideoFigures]], images: dict[str, NdArray], record: dict) -> None:
  for name, image in images.items():
    if image.shape != record["frame"].shape:
      raise UserError(
        f"{name.replace('_', ' ')} frames are {image.shape[1]}x{image.shape[0]} pixels and true ones"
        f" {record['frame'].shape[1]}x{record['frame'].shape[0]}"
      )
    for region, mask in _REGIONS.items():
      figures[region].setdefault(name, VideoFigures()).add(image, record["frame"], record[mask])


def save_report(report: dict, path: Path) -> None:
  """Writes a report as JSON."""
  with new_file(path) as place:
    place.write_text(json.dumps(report, indent=1) + "\n")


def summary(report: dict) -> str:
  """Returns the three most important figures, one a line."""
  person, face = report["person"], report["face"]
  ours, mean, nearest = (person[name] for name in ("generated", "mean_training_frame", "nearest_pose_training_frame"))
  lines = [
    f"PSNR of the person  {ours['psnr']:.2f} dB  (nearest training frame {nearest['psnr']:.2f}, mean frame"
    f" {mean['psnr']:.2f})",
    f"SSIM of the person  {ours['ssim']:.3f}     (nearest training frame {nearest['ssim']:.3f}, mean frame"
    f" {mean['ssim']:.3f})",
  ]
  if "generated" in face:
    bare = face.get("generated_without_head")
    compared = "" if bare is None else f"  (without the head model {bare['psnr']:.2f})"
    lines.append(f"PSNR of the face    {face['generated']['psnr']:.2f} dB{compared}")
  if "generated_without_head" in face and face["generated"]["psnr"] < face["generated_without_head"]["psnr"]:
    lines.append("The head model lowers the face's PSNR: generate with --no-head.")
  return "\n".join(lines)


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.evaluate", __doc__)
  parser.add_argument("--generated", type=Path, required=True, metavar="VIDEO", help="what `generate` wrote")
  parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="prepared folder of the true video")
  parser.add_argument("--training", type=Path, required=True, metavar="DIR", help="prepared folder trained on")
  parser.add_argument("--without-head", type=Path, metavar="VIDEO", help="the same with --no-head")
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
  args = parser.parse_args()
  inputs = [args.generated, args.truth, args.training, *filter(None, [args.without_head])]
  refuse_overwriting(args.output, inputs)
  prepare_parent(args.output)  # a bad path must not cost the work
  report = evaluate(args.generated, args.truth, args.training, args.without_head)
  save_report(report, args.output)
  print(summary(report))


make_callable(__name__)  # anchor_jax.evaluate(...) is the function, also after `import anchor_jax.evaluate`

if __name__ == "__main__":
  main()
