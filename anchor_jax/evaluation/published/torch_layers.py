"""Layers of published networks, as functions of parameters with torch's names and layout.

These networks are only ever read, so they need no Flax modules. Pictures are [B H W C] and clips [B T H W C]; kernels
keep torch's axis order.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float

Params = Mapping[str, Array]
Padding = Sequence[tuple[int, int]] | str  # zeros before and after each spatial axis, or TensorFlow's "SAME"

_LAYOUTS = {4: ("NHWC", "OIHW", "NHWC"), 5: ("NDHWC", "OIDHW", "NDHWC")}


def convolution(
  params: Params, name: str, x: Float[Array, "B *space C"], stride: int = 1, padding: Padding | int = 0
) -> Float[Array, "B *smaller O"]:
  """Convolves with torch's `name`.weight and optional `name`.bias; an integer `padding` applies to all sides."""
  axes = x.ndim - 2
  around = [(padding, padding)] * axes if isinstance(padding, int) else padding
  kernel = params[f"{name}.weight"]
  y = jax.lax.conv_general_dilated(x, kernel, (stride,) * axes, around, dimension_numbers=_LAYOUTS[x.ndim])
  return y + params[f"{name}.bias"] if f"{name}.bias" in params else y


def batch_norm(params: Params, name: str, x: Float[Array, "*any C"], epsilon: float) -> Float[Array, "*any C"]:
  """Batch normalization with the stored running statistics."""
  scale = params[f"{name}.weight"] * jax.lax.rsqrt(params[f"{name}.running_var"] + epsilon)
  return x * scale + (params[f"{name}.bias"] - params[f"{name}.running_mean"] * scale)


def max_pool(
  x: Float[Array, "B *space C"], size: Sequence[int], stride: Sequence[int], padding: Padding = "VALID"
) -> Float[Array, "B *smaller C"]:
  """Max pooling; padding counts as minus infinity."""
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *size, 1), (1, *stride, 1), _all_axes(padding))


def mean_pool(
  x: Float[Array, "B *space C"], size: Sequence[int], padding: Padding = "VALID"
) -> Float[Array, "B *smaller C"]:
  """Mean pooling with stride 1; padding is excluded from the mean."""
  total = lambda values: jax.lax.reduce_window(
    values, 0.0, jax.lax.add, (1, *size, 1), (1,) * values.ndim, _all_axes(padding)
  )
  return total(x) / total(jnp.ones((1, *x.shape[1:-1], 1), x.dtype))


def _all_axes(padding: Padding) -> Padding:
  return padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]


def resize_bilinear(images: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B {height} {width} C"]:
  """Torch's interpolate(mode="bilinear", align_corners=False), which does not antialias."""
  return jax.image.resize(images, (len(images), height, width, images.shape[-1]), "bilinear", antialias=False)
