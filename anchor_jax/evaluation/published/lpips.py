"""LPIPS (Zhang et al. 2018), version 0.1: the weighted distance between features of AlexNet or VGG16.

Parameters are those of the `lpips` package's LPIPS module: `net.slice1.0.weight`, ..., `lin4.model.1.weight`.
"""

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float
from anchor_jax.evaluation.published.torch_layers import Params, convolution, max_pool

Features = list[Float[Array, "B _ _ _"]]
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10
# (number, stride, padding) of the convolutions in each slice; VGG's slices after the first start with a max pool, as do
# AlexNet's second and third.
_ALEX = (((0, 4, 2),), ((3, 1, 2),), ((6, 1, 1),), ((8, 1, 1),), ((10, 1, 1),))
_VGG = tuple(
  tuple((number, 1, 1) for number in numbers) for numbers in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
)
_LEAST = {"alex": 31, "vgg": 16}  # pixels: the pools reduce smaller pictures to nothing


def network_kind(params: Params) -> str:
  """Returns which network the parameters are for: "alex" or "vgg"."""
  return "vgg" if "net.slice1.2.weight" in params else "alex"


def least_side(params: Params) -> int:
  """Returns the smallest height and width of a picture, in pixels."""
  return _LEAST[network_kind(params)]


def features(params: Params, images: Float[Array, "B H W 3"]) -> Features:
  """Returns the features of five layers, normalized to unit length at each pixel.

  Args:
    params: the LPIPS module's.
    images: RGB, -1 to 1.
  """
  network = network_kind(params)
  x = (images - jnp.asarray(_SHIFT)) / jnp.asarray(_SCALE)
  pool = (3, 3) if network == "alex" else (2, 2)
  layers_out = []
  for number, layers in enumerate(_ALEX if network == "alex" else _VGG):
    if number in (1, 2) or (number and network == "vgg"):
      x = max_pool(x, pool, (2, 2))
    for layer, stride, padding in layers:
      x = jnp.maximum(convolution(params, f"net.slice{number + 1}.{layer}", x, stride, padding), 0)
    squares = jnp.square(x).sum(axis=-1, keepdims=True)
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)  # the slope at 0 is not infinite
    layers_out.append(x / (length + _EPSILON))
  return layers_out


def distance(params: Params, one: Features, other: Features) -> Float[Array, " B"]:
  """Returns the distances between pictures given by their `features`; 0 for equal ones."""
  total = jnp.zeros(len(one[0]))
  for number, (a, b) in enumerate(zip(one, other, strict=True)):
    weights = params[f"lin{number}.model.1.weight"][0, :, 0, 0]
    total += (jnp.square(a - b) @ weights).mean(axis=(1, 2))
  return total
