"""Network measures: streamed figures equal those of full videos, closed forms, one-line errors for wrong files.

`make parity` compares the networks with the published packages.
"""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
from published import alexnet
from safetensors.numpy import save_file

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.measure import NETWORKS, open_measures
from anchor_jax.evaluation.networks import MEASURES, FrechetMeasure, PairMeasure

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 256, (21, 40, 40, 3), dtype=np.uint8)
GENERATED = np.clip(TRUE + RNG.normal(5, 30, TRUE.shape), 0, 255).astype(np.uint8)


def mean_color(pictures):
  return jnp.asarray(pictures, jnp.float32).mean(axis=(1, 2))


def stream(measure, **videos):
  for number, true in enumerate(TRUE):
    measure.add({name: video[number] for name, video in videos.items()}, {"frame": true})
  return measure.figures()


def test_pair_measures_average_over_frames():
  measure = PairMeasure("color", mean_color, lambda a, b: jnp.abs(a - b).sum(axis=-1), {"weights": "w"})
  found = stream(measure, generated=GENERATED, still=TRUE[:1].repeat(21, axis=0), equal=TRUE)
  for name, video in {"generated": GENERATED, "still": TRUE[:1], "equal": TRUE}.items():
    expected = np.abs(video.mean(axis=(1, 2)) - TRUE.mean(axis=(1, 2))).sum(axis=-1).mean()
    assert found[name] == pytest.approx(expected, rel=1e-5)
  assert measure.details() == {"frames": 21, "weights": "w"}


def test_frechet_distances_cover_all_frames_or_all_full_clips():
  def change(clip):
    """A clip's features: how much its mean color varies."""
    return mean_color(clip).std(axis=0)[None]

  frames = FrechetMeasure("color", mean_color, 3, {})
  found = stream(frames, plain=np.full_like(TRUE, 100), equal=TRUE)
  means = TRUE.mean(axis=(1, 2), dtype=np.float64)  # for a plain color only the means and the truth's variance count
  expected = np.square(means.mean(axis=0) - 100).sum() + np.trace(np.cov(means, rowvar=False))
  assert found["plain"] == pytest.approx(expected, rel=1e-5)
  spread = np.trace(np.cov(means, rowvar=False))  # equal features: the distance is a few roundings of this
  assert 0 <= found["equal"] <= 100 * np.finfo(float).eps * spread
  clips = FrechetMeasure("change", change, 3, {}, clip=8)
  changes = [np.asarray(change(TRUE[first : first + 8]), float) for first in (0, 8)]
  spread = np.square(changes[0] - changes[1]).sum() / 2
  assert 0 <= stream(clips, equal=TRUE)["equal"] <= 100 * np.finfo(float).eps * spread
  assert clips.details() == {"frames": 16, "clips": 2, "clip_frames": 8}
  short = FrechetMeasure("change", change, 3, {}, clip=16)
  assert stream(short, equal=TRUE) == {} and short.details()["clips"] == 1


def test_lpips_of_a_file(tmp_path):
  tensors, file = alexnet(), tmp_path / "lpips.safetensors"
  save_file(tensors, file)
  (measure,) = open_measures({"lpips": file})
  noisy = np.clip(TRUE + RNG.normal(0, 90, TRUE.shape), 0, 255).astype(np.uint8)
  found = stream(measure, equal=TRUE, generated=GENERATED, noisy=noisy)
  assert found["equal"] == 0 < found["generated"] < found["noisy"]
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  assert measure.details() == {"frames": 21, "weights": file.name, "sha256": digest, "network": "alex"}
  save_file({name: t * (2 if name.startswith("lin") else 1) for name, t in tensors.items()}, file)
  assert stream(open_measures({"lpips": file})[0], a=GENERATED)["a"] == pytest.approx(2 * found["generated"], rel=1e-5)
  with pytest.raises(UserError, match="at least 31 pixels"):
    small = open_measures({"lpips": file})[0]
    small.add({"generated": TRUE[0, :20, :20]}, {"frame": TRUE[0, :20, :20]})
    small.figures()


def test_wrong_files_give_one_line_errors(tmp_path):
  assert set(NETWORKS) == set(MEASURES) and open_measures({}) == []
  file, tensors = tmp_path / "w.safetensors", alexnet()
  for name, content, line in (
    ("lpips", None, "no file"),
    ("lpips", {n: t for n, t in tensors.items() if not n.startswith("lin3")}, "no tensor 'lin3.model.1.weight'"),
    ("lpips", tensors | {"lin2.model.1.weight": np.ones((1, 9, 1, 1), np.float32)}, "other sizes"),
    ("fid", tensors, "no tensor 'Conv2d_1a_3x3.conv.weight'"),
    ("fvd", tensors, "no tensor 'Conv3d_1a_7x7.conv3d.weight'"),
  ):
    if content is not None:
      save_file(content, file)
    with pytest.raises(UserError, match=line):
      open_measures({name: file})
  (tmp_path / "w.pth").write_bytes(b"code")
  with pytest.raises(UserError, match=r"never opened here.*w\.pth .*w\.safetensors"):
    open_measures({"fid": tmp_path / "w.pth"})
