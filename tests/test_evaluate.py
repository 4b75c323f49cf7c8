"""evaluate: equal to the plain formulas, memory that does not grow with the length, wrong input in one line."""

import tracemalloc

import numpy as np
import pytest

from anchor_jax import evaluate as module
from anchor_jax import metrics
from anchor_jax.data.sources import ArraySource
from anchor_jax.errors import UserError


def source(posed_frames, count, seed=0, size=32):
  frames = list(posed_frames(count, size, seed))
  arrays = {name: np.stack([getattr(frame, name) for frame in frames]) for name in ("frame", "pose")}
  arrays |= {name: np.stack([getattr(f, name) for f in frames])[..., None] for name in ("person_mask", "face_mask")}
  return ArraySource(arrays, np.zeros(count, int))


def test_the_report_is_that_of_the_plain_formulas(posed_frames):
  truth, training = source(posed_frames, 5), source(posed_frames, 7, seed=3)
  noise = np.random.default_rng(0).integers(-9, 10, truth.arrays["frame"].shape)
  generated = np.clip(truth.arrays["frame"].astype(int) + noise, 0, 255).astype(np.uint8)
  report = module.evaluate(iter(generated), truth, training, without_head=truth.arrays["frame"])
  mean = np.round(training.arrays["frame"].mean(axis=0)).astype(np.uint8)
  flat = [s.arrays["pose"].reshape(len(s), -1).astype(float) for s in (truth, training)]
  nearest = np.square(flat[0][:, None] - flat[1]).sum(-1).argmin(1)
  contenders = {
    "generated": generated,
    "generated_without_head": truth.arrays["frame"],
    "mean_training_frame": np.broadcast_to(mean, generated.shape),
    "nearest_pose_training_frame": training.arrays["frame"][nearest],
  }
  assert report["frames"] == 5 and report["training_frames"] == 7
  for region in ("person", "face"):
    for name, frames in contenders.items():
      for figure in ("psnr", "ssim", "flicker"):
        wanted = getattr(metrics, figure)(frames, truth.arrays["frame"], truth.arrays[f"{region}_mask"])
        assert report[region][name][figure] == pytest.approx(wanted, abs=1e-4), (region, name, figure)


def test_blocks_change_nothing(posed_frames, monkeypatch):
  truth, training = source(posed_frames, 6), source(posed_frames, 9, seed=2)
  whole = module.nearest_poses(truth, training, range(6))
  monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 32 * 32 * 3 * 2)  # two renders at a time
  np.testing.assert_array_equal(module.nearest_poses(truth, training, range(6)), whole)


class Endless(ArraySource):
  """One record said to be many."""

  def __init__(self, one, count):
    super().__init__({}, np.zeros(count, int))
    self.one = one

  def read(self, index, fields):
    return self.one.read(0, fields)


def test_memory_does_not_grow_with_the_length(posed_frames, monkeypatch):
  monkeypatch.setattr(module, "_BLOCK_BYTES", 2**20)
  one = source(posed_frames, 1, size=64)

  def peak(count):
    records = Endless(one, count)
    tracemalloc.start()
    module.evaluate((one.arrays["frame"][0] for _ in range(count)), records, records)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found

  peak(4)
  assert peak(120) < peak(30) + 2**20  # 90 frames of 64 pixels as float32 are 4.4 MB


def test_wrong_input_is_one_line(posed_frames):
  truth = source(posed_frames, 3)
  frames = truth.arrays["frame"]
  for generated, without_head, line in (
    (np.repeat(frames, 2, axis=0), None, "6 generated frames and only 3"),
    (iter(np.repeat(frames, 2, axis=0)), None, "more than 3 generated frames"),
    ([], None, "no generated frame"),
    (frames[:, ::2], None, "32x16 pixels"),
    (frames, frames[:2], "different numbers"),
  ):
    with pytest.raises(UserError, match=line):
      module.evaluate(generated, truth, truth, without_head)
