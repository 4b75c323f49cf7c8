"""Makes networks from others: a pose branch from a UNet, a head UNet from a body UNet."""

import dataclasses
import math

import numpy as np

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray
from anchor_jax.formats.names import Path
from anchor_jax.formats.registry import parameter_shapes
from anchor_jax.formats.tensors import Tensor

_STEM = "controlnet_cond_embedding"
_CONV_IN = ("conv_in", "kernel")


def controlnet_from_unet(
  config: UNetConfig,
  tensors: dict[Path, Tensor],
  stem_widths: tuple[int, ...] = (16, 32, 96, 256),
  seed: int = 0,
) -> tuple[ControlNetConfig, dict[Path, Tensor]]:
  """Returns a pose branch whose downward half is the UNet's (Zhang et al. 2023, section 3.1); its residuals are zero.

  Args:
    config, tensors: the UNet. Of a head UNet the branch takes the noisy latent's channels alone.
    stem_widths: channels of the stem, one for each size; `len - 1` halvings must bring the render to the latent's size.
    seed: of the stem's random weights.

  Returns:
    Its configuration and parameters; the stem's last convolution and all exits are zero.
  """
  branch = ControlNetConfig.from_unet(config, stem_widths)
  rng = np.random.default_rng(seed)
  dtype = tensors[_CONV_IN].dtype
  params = {}
  for path, shape in parameter_shapes(branch).items():
    if path == _CONV_IN:
      params[path] = tensors[path].then(shape, lambda kernel: kernel[:, :, : branch.in_channels])
    elif path in tensors and path[0] != "conv_norm_out":
      params[path] = tensors[path]
    else:
      kernel = path[0] == _STEM and path[1] != "conv_out" and path[-1] == "kernel"
      array = _random_kernel(rng, shape) if kernel else np.zeros(shape, np.float32)
      params[path] = Tensor.of(array.astype(dtype))
  return branch, params


def head_unet_from_unet(config: UNetConfig, tensors: dict[Path, Tensor]) -> tuple[UNetConfig, dict[Path, Tensor]]:
  """A UNet that also sees a mask and a masked image's latent: five more input channels, which start at zero.

  Raises:
    UserError: the UNet has more input channels than its output already.
  """
  if config.in_channels != config.out_channels:
    raise UserError(
      f"a head UNet is derived from one with {config.out_channels} input channels, not {config.in_channels}"
    )
  head = dataclasses.replace(config, in_channels=2 * config.out_channels + 1)
  shape = parameter_shapes(head)[_CONV_IN]

  def widen(kernel: NdArray) -> NdArray:
    return np.concatenate([kernel, np.zeros((*shape[:2], shape[2] - kernel.shape[2], shape[3]), kernel.dtype)], axis=2)

  return head, {**tensors, _CONV_IN: tensors[_CONV_IN].then(shape, widen)}


def _random_kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> NdArray:
  return rng.normal(0, math.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
