"""The I3D network of the Fréchet video distance (Carreira and Zisserman 2017; Unterthiner et al. 2018).

Parameters are those of the torch port that VideoGPT, TATS and the `cd-fvd` package use (`i3d_pretrained_400.pt`). The
features are the logits of Kinetics' 400 classes.
"""

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float
from anchor_jax.evaluation.published.torch_layers import Params, batch_norm, convolution, max_pool, mean_pool

SIDE = 224  # pixels
FEATURES = 400
_EPSILON = 1e-5
_POOLS = {  # size in time and in space; strides are 2, except 1 in time where the size in time is 1
  "MaxPool3d_2a_3x3": (1, 3),
  "MaxPool3d_3a_3x3": (1, 3),
  "MaxPool3d_4a_3x3": (3, 3),
  "MaxPool3d_5a_2x2": (2, 2),
}
_LAYERS = (
  "Conv3d_1a_7x7 MaxPool3d_2a_3x3 Conv3d_2b_1x1 Conv3d_2c_3x3 MaxPool3d_3a_3x3 Mixed_3b Mixed_3c MaxPool3d_4a_3x3"
  " Mixed_4b Mixed_4c Mixed_4d Mixed_4e Mixed_4f MaxPool3d_5a_2x2 Mixed_5b Mixed_5c"
).split()


def i3d_features(params: Params, clips: Float[Array, "B T 224 224 3"]) -> Float[Array, "B 400"]:
  """Returns the class logits, averaged over time.

  Args:
    params: by names such as `Mixed_3b.b1a.conv3d.weight`.
    clips: RGB, -1 to 1, at least 9 frames.
  """
  x = clips
  for name in _LAYERS:
    if name in _POOLS:
      time, space = _POOLS[name]
      x = max_pool(x, (time, space, space), (min(time, 2), 2, 2), "SAME")
    elif name.startswith("Mixed"):
      x = _block(params, name, x)
    else:
      x = _unit(params, name, x, 2 if name == _LAYERS[0] else 1)
  x = mean_pool(x, (2, SIDE // 32, SIDE // 32))
  return convolution(params, "logits.conv3d", x).mean(axis=(1, 2, 3))


def _unit(params: Params, name: str, x: Array, stride: int = 1) -> Array:
  x = convolution(params, f"{name}.conv3d", x, stride, "SAME")
  return jnp.maximum(batch_norm(params, f"{name}.bn", x, _EPSILON), 0)


def _block(params: Params, name: str, x: Array) -> Array:
  unit = lambda branch, values: _unit(params, f"{name}.{branch}", values)
  pooled = max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")
  parts = [unit("b0", x), unit("b1b", unit("b1a", x)), unit("b2b", unit("b2a", x)), unit("b3b", pooled)]
  return jnp.concatenate(parts, axis=-1)
