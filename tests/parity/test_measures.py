"""LPIPS, FID and FVD of `evaluate` against the published packages, on random weights and frames."""

import contextlib
import importlib
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anchor_jax.evaluation.frechet import Moments, frechet_distance
from anchor_jax.evaluation.networks import fid_measure, fvd_measure, lpips_measure

for package in ("lpips", "pytorch_fid", "cdfvd"):
  if importlib.util.find_spec(package) is None:
    pytest.skip(f"{package} is not installed: run `make parity`", allow_module_level=True)

# A torchvision built for another torch lacks two operators that its import needs but nothing here calls.
try:
  import torchvision
except RuntimeError:
  for name in [name for name in sys.modules if name.startswith("torchvision")]:
    del sys.modules[name]
  operators = torch.library.Library("torchvision", "FRAGMENT")
  boxes, quantized = "Tensor dets, Tensor scores, float threshold", "Tensor scale, int zero"
  for operator in (f"nms({boxes}) -> Tensor", f"qnms({boxes}, {quantized}) -> Tensor"):
    with contextlib.suppress(RuntimeError):
      operators.define(operator)
  import torchvision

SIDE = 48


@pytest.fixture(scope="module")
def videos():
  """Generated and true frames whose number and size do not fit the networks evenly."""
  rng = np.random.default_rng(0)
  true = rng.integers(0, 256, (19, SIDE, SIDE, 3), dtype=np.uint8)
  generated = np.clip(true + rng.normal(0, 40, true.shape), 0, 255).astype(np.uint8)
  return generated, true


def random_weights(module, seed):
  """Fills a module with random weights for which activations neither vanish nor explode, even with batch norms."""
  generator = torch.Generator().manual_seed(seed)
  draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
  with torch.no_grad():
    for name, tensor in module.state_dict().items():
      if "scaling_layer" in name:  # constants
        continue
      if tensor.ndim > 1:
        tensor.copy_(draw(tensor) * (2 / tensor[0].numel()) ** 0.5)
      elif name.endswith("running_var"):
        tensor.copy_(1 + 0.2 * draw(tensor).abs())
      elif name.endswith("bn.weight"):
        tensor.copy_(1 + 0.1 * draw(tensor))
      elif tensor.dtype.is_floating_point:
        tensor.copy_(0.1 * draw(tensor))
  return module.eval()


def saved(module, path):
  save_file({name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}, path)
  return path


def measured(measure, generated, true):
  for one, other in zip(generated, true, strict=True):
    measure.add({"generated": one}, {"frame": other})
  return measure.figures()["generated"]


def unit(frames):
  """[T 3 H W], 0 to 1."""
  return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips(net, videos, tmp_path):
  import lpips

  module = random_weights(lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False), 1)
  for lin in module.lins:  # distances are positive
    lin.model[1].weight.data.abs_()
  with torch.no_grad():
    expected = module(*map(unit, videos), normalize=True).mean()
  measure = lpips_measure(saved(module, tmp_path / "lpips.safetensors"))
  assert measured(measure, *videos) == pytest.approx(float(expected), rel=1e-4)
  assert measure.details()["network"] == net and measure.details()["frames"] == len(videos[0])


def test_fid(videos, tmp_path, monkeypatch):
  from pytorch_fid import fid_score, inception

  monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: base.state_dict())
  base = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
  published = inception.fid_inception_v3()
  random_weights(published, 2)
  base.load_state_dict(published.state_dict())
  network = inception.InceptionV3().eval()
  with torch.no_grad():
    features = [network(unit(frames))[0][..., 0, 0].double().numpy() for frames in videos]
  measure = fid_measure(saved(published, tmp_path / "fid.safetensors"))
  got = np.asarray(measure._features(videos[0][:8]))
  np.testing.assert_allclose(got, features[0][:8], rtol=0, atol=2e-4 * np.abs(features[0]).max())
  some = [
    part[:, :12] for part in features
  ]  # fewer features than frames: otherwise the package's matrix root is not exact
  moments = []
  for part in some:
    moments.append(Moments(12))
    moments[-1].add(part[:7])
    moments[-1].add(part[7:])
  expected = fid_score.calculate_frechet_distance(
    *(statistic for part in some for statistic in (part.mean(axis=0), np.cov(part, rowvar=False)))
  )
  assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-6)
  assert measured(measure, *videos) > 0


def test_fvd(videos, tmp_path):
  from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d
  from cdfvd.third_party.i3d.utils import preprocess_i3d

  module = random_weights(InceptionI3d(400, in_channels=3), 3)
  clips = [np.concatenate([frames, frames[::-1]])[:32] for frames in videos]
  with torch.no_grad():
    expected = [module(preprocess_i3d(frames[:16][None])).numpy()[0] for frames in clips]
  measure = fvd_measure(saved(module, tmp_path / "fvd.safetensors"))
  for frames, features in zip(clips, expected):
    got = np.asarray(measure._features(frames[:16]))[0]
    np.testing.assert_allclose(got, features, rtol=0, atol=2e-4 * np.abs(features).max())
  assert measured(measure, *clips) > 0 and measure.details()["clips"] == 2
