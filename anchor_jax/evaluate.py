r"""Compares generated frames with what was really filmed, beside two baselines that anyone could make.

Example:
  python -m anchor_jax.evaluate --generated=runs/ana/held_out.mp4 --truth=data/ana_held_out --training=data/ana \
    --output=runs/ana/report.json

The figures are over the person's region of the truth. Baselines: the mean training frame, and for each frame the
training frame whose pose render is nearest. The person's mask is used here only; generating sees none of it.
"""

import json
from pathlib import Path

import numpy as np

from anchor_jax import metrics
from anchor_jax.cli import Parser, command
from anchor_jax.data.records import open_prepared
from anchor_jax.data.sources import Source, load
from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.motion.video import read_frames
from anchor_jax.shapes import NdArray, UInt8


def evaluate(
  generated: UInt8[NdArray, "T H W 3"],
  truth: Source,
  training: Source,
  without_head: UInt8[NdArray, "T H W 3"] | None = None,
) -> dict:
  """The report: for each contender PSNR (dB), SSIM and flicker (grey levels), over the person and over the face.

  Args:
    generated: frames in the order of the truth's first video.
    truth: a prepared folder's records.
    training: the records the person was learned from, for the baselines.
    without_head: the same frames before the head model repainted the faces.
  """
  count = len(generated)
  filmed = int(np.sum(truth.videos == truth.videos[0]))
  if count > filmed:
    raise UserError(f"there are {count} generated frames and only {filmed} true ones: generate from the same motion")
  fields = ("frame", "pose", "person_mask", "face_mask")
  records = [truth.read(i, fields) for i in range(count)]
  true = {name: np.stack([record[name] for record in records]) for name in fields}
  if generated.shape != true["frame"].shape:
    raise UserError(f"generated frames are {generated.shape[1:3]} and true ones {true['frame'].shape[1:3]} pixels")
  known = load(training, ("frame", "pose"))
  mean = np.round(known.arrays["frame"].mean(axis=0)).astype(np.uint8)
  nearest = known.arrays["frame"][nearest_poses(true["pose"], known.arrays["pose"])]
  contenders = {
    "generated": generated,
    "generated_without_head": without_head,
    "mean_training_frame": np.broadcast_to(mean, generated.shape),
    "nearest_pose_training_frame": nearest,
  }
  report: dict = {"frames": count, "training_frames": len(training)}
  for region, mask in (("person", true["person_mask"]), ("face", true["face_mask"])):
    report[region] = {
      name: _figures(frames, true["frame"], mask) for name, frames in contenders.items() if frames is not None
    }
  person = report["person"]
  baselines = [person["mean_training_frame"], person["nearest_pose_training_frame"]]
  report["beats_both_baselines"] = all(
    person["generated"][figure] > baseline[figure] for figure in ("psnr", "ssim") for baseline in baselines
  )
  return report


def nearest_poses(wanted: UInt8[NdArray, "T H W 3"], known: UInt8[NdArray, "N H W 3"]) -> NdArray:
  """For each wanted pose render the number of the known one with the smallest squared difference."""
  flat = [poses.reshape(len(poses), -1).astype(np.float32) for poses in (wanted, known)]
  distance = np.square(flat[1]).sum(axis=1) - 2 * flat[0] @ flat[1].T  # the wanted pose's own square changes nothing
  return distance.argmin(axis=1)


def save_report(report: dict, path: Path) -> None:
  """Writes a report as JSON."""
  with new_file(path) as place:
    place.write_text(json.dumps(report, indent=1) + "\n")


def summary(report: dict) -> str:
  """The three figures that matter, a line each."""
  person, face = report["person"], report["face"]
  ours, mean, nearest = (person[name] for name in ("generated", "mean_training_frame", "nearest_pose_training_frame"))
  lines = [
    f"PSNR of the person  {ours['psnr']:.2f} dB  (nearest training frame {nearest['psnr']:.2f}, mean frame"
    f" {mean['psnr']:.2f})",
    f"SSIM of the person  {ours['ssim']:.3f}     (nearest training frame {nearest['ssim']:.3f}, mean frame"
    f" {mean['ssim']:.3f})",
  ]
  if "generated_without_head" in face:
    lines.append(
      f"PSNR of the face    {face['generated']['psnr']:.2f} dB  (without the head model"
      f" {face['generated_without_head']['psnr']:.2f})"
    )
  return "\n".join(lines)


def _figures(frames: NdArray, truth: NdArray, mask: NdArray) -> dict[str, float]:
  figures = {"psnr": metrics.psnr(frames, truth, mask), "ssim": metrics.ssim(frames, truth, mask)}
  if len(truth) > 1:
    figures["flicker"] = metrics.flicker(frames, truth, mask)
  return {name: round(value, 4) for name, value in figures.items()}


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
  read = lambda path: np.stack(list(read_frames(path)))
  without_head = None if args.without_head is None else read(args.without_head)
  report = evaluate(read(args.generated), open_prepared(args.truth), open_prepared(args.training), without_head)
  save_report(report, args.output)
  print(summary(report))


if __name__ == "__main__":
  main()
