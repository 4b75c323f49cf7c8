"""The InceptionV3 of the Fréchet Inception distance (Heusel et al. 2017), as in the `pytorch-fid` package.

Its weights were trained in TensorFlow in 2015. It differs from torchvision's network in two ways: mean pools exclude
padding at the border, and the last block uses max pooling.
"""

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float
from anchor_jax.evaluation.published.torch_layers import (
  Params,
  batch_norm,
  convolution,
  max_pool,
  mean_pool,
  resize_bilinear,
)

SIDE = 299  # pixels
FEATURES = 2048
_EPSILON = 1e-3
_AROUND = [(1, 1), (1, 1)]


def inception_features(params: Params, images: Float[Array, "B H W 3"]) -> Float[Array, "B 2048"]:
  """Returns the features before the classifier, averaged over the picture.

  Args:
    params: by torchvision's names, such as `Mixed_5b.branch1x1.conv.weight`.
    images: RGB, 0 to 1, of any size; resized to 299 x 299 without antialiasing, as pytorch-fid does.
  """
  net = _Units(params)
  x = 2 * resize_bilinear(images, SIDE, SIDE) - 1
  x = net("Conv2d_2a_3x3", net("Conv2d_1a_3x3", x, stride=2))
  x = max_pool(net("Conv2d_2b_3x3", x, padding=1), (3, 3), (2, 2))
  x = max_pool(net("Conv2d_4a_3x3", net("Conv2d_3b_1x1", x)), (3, 3), (2, 2))
  for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
    x = net.block(name, x, ("branch1x1",), ("branch5x5_1", "branch5x5_2"), _DOUBLE, pool=_mean)
  x = net.halved("Mixed_6a", x, ("branch3x3",), _DOUBLE)
  for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
    x = net.block(name, x, ("branch1x1",), _numbered("branch7x7", 3), _numbered("branch7x7dbl", 5), pool=_mean)
  x = net.halved("Mixed_7a", x, _numbered("branch3x3", 2), _numbered("branch7x7x3", 4))
  for name, pool in (("Mixed_7b", _mean), ("Mixed_7c", _max)):
    wide = [net.forked(f"{name}.{branch}", x, last) for branch, last in (("branch3x3", 2), ("branch3x3dbl", 3))]
    parts = [net(f"{name}.branch1x1", x), *wide, net(f"{name}.branch_pool", pool(x))]
    x = jnp.concatenate(parts, axis=-1)
  return x.mean(axis=(1, 2))


def _numbered(branch: str, count: int) -> tuple[str, ...]:
  return tuple(f"{branch}_{number + 1}" for number in range(count))


_DOUBLE = _numbered("branch3x3dbl", 3)


def _mean(x: Array) -> Array:
  return mean_pool(x, (3, 3), _AROUND)


def _max(x: Array) -> Array:
  return max_pool(x, (3, 3), (1, 1), _AROUND)


class _Units:
  """Convolution, batch norm and ReLU by name, and the blocks built from them."""

  def __init__(self, params: Params):
    self.params = params

  def __call__(self, name: str, x: Array, stride: int = 1, padding: int | None = 0) -> Array:
    """Applies one unit; `padding=None` keeps the size."""
    kernel = self.params[f"{name}.conv.weight"].shape[2:]
    around = [(side // 2, side // 2) if padding is None else (padding, padding) for side in kernel]
    x = convolution(self.params, f"{name}.conv", x, stride, around)
    return jnp.maximum(batch_norm(self.params, f"{name}.bn", x, _EPSILON), 0)

  def chain(self, block: str, x: Array, units: tuple[str, ...]) -> Array:
    for unit in units:
      x = self(f"{block}.{unit}", x, padding=None)
    return x

  def block(self, name: str, x: Array, *branches: tuple[str, ...], pool) -> Array:
    parts = [self.chain(name, x, branch) for branch in branches]
    return jnp.concatenate([*parts, self(f"{name}.branch_pool", pool(x))], axis=-1)

  def halved(self, name: str, x: Array, *branches: tuple[str, ...]) -> Array:
    parts = [self(f"{name}.{branch[-1]}", self.chain(name, x, branch[:-1]), stride=2) for branch in branches]
    return jnp.concatenate([*parts, max_pool(x, (3, 3), (2, 2))], axis=-1)

  def forked(self, branch: str, x: Array, last: int) -> Array:
    for number in range(1, last):
      x = self(f"{branch}_{number}", x, padding=None)
    return jnp.concatenate([self(f"{branch}_{last}{side}", x, padding=None) for side in "ab"], axis=-1)
