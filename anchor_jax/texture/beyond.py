"""Guesses beyond the pose: what a key frame shows beside its pose is put beside the wanted pose, on the device.

A wanted pixel x without surface, whose nearest pixel with surface is p: the key frame shows the skin of p at q. From q
the nearest place beside the key frame's pose is e; x is guessed to look like the place as far from e, in the same
direction, as x is from the pose. Following the outlines works better than going from q by x - p: on the demo's person
it finds 88 % of the pixels beside the pose instead of 70 %, since a turned body shows other skin at its outline.

All positions are whole numbers, so results are equal bit for bit however frames are divided among devices.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from anchor_jax.core.shapes import Array, Bool, Float, Int, UInt8

_REACH = 1 / 16  # of the picture's height: how far from the pose colours are guessed
_MOST = 64  # pixels; steps of twice as many would not fit 32 bits
_DEPTH = 1 / 32  # how far inside the key frame's outline the skin of the wanted outline may lie
_GUESS = 1 / 4  # quality of the best guess, where a view has 1


class NearestSkin(NamedTuple):
  """The nearest pixel with surface, for every pixel of a wanted frame.

  Attributes:
    place: its number in the flattened picture; of the pixel itself where none is within reach.
    beyond: x and y, from the first pixel beside the pose to this one, in `steps` of a pixel.
    share: what a guess counts: 1/4 at the pose, less further away, 0 on the pose and out of reach.
  """

  place: Int[Array, "H W"]
  beyond: Int[Array, "H W 2"]
  share: Float[Array, "H W"]


def reach_inside(height: int) -> int:
  """Pixels from the outline up to which skin in a key frame belongs to it."""
  return max(1, round(height * _DEPTH))


def nearest_skin(surface: UInt8[Array, "H W 3"], steps: int) -> NearestSkin:
  """Finds the nearest pixel with surface up to 1/16 of the height away; of several the upper, then the left one.

  Args:
    surface: of the wanted frame.
    steps: in a pixel, for `NearestSkin.beyond`.
  """
  height, width = surface.shape[:2]
  reach = max(1, min(round(height * _REACH), _MOST))
  side = 2 * reach + 1
  far = reach + 1
  covered = jnp.pad(surface[..., 0] > 0, reach)
  # Along rows: 2 |x| + (0 for left, 1 for right), so that the smallest is the nearest.
  row = jnp.full((height + 2 * reach, width), 2 * far, jnp.int32)
  for x in range(-reach, reach + 1):
    row = jnp.minimum(row, jnp.where(covered[:, reach + x : reach + x + width], 2 * abs(x) + (x > 0), 2 * far))
  across = jnp.where(row % 2 == 1, row // 2, -(row // 2))
  # Then along columns: squared distance, and which step it is.
  keys = jnp.where(row < 2 * far, (row // 2) ** 2 * side**2 + across + reach, 2 * far**2 * side**2)
  best = jnp.full((height, width), 2 * far**2 * side**2, jnp.int32)
  for y in range(-reach, reach + 1):
    best = jnp.minimum(best, keys[reach + y : reach + y + height] + y**2 * side**2 + (y + reach) * side)
  found = best < (reach**2 + 1) * side**2
  step = jnp.where(found, best % side**2, (side**2 - 1) // 2)
  beyond, share = _steps(reach, steps)
  away = (step // side - reach) * width + step % side - reach
  index = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width) + away
  return NearestSkin(index, jnp.asarray(beyond)[step], jnp.asarray(share)[step])


def guess(
  skin: NearestSkin,
  outline: Int[Array, "h w 3"],
  at: Int[Array, "H W 2"],
  quality: Float[Array, "H W"],
  steps: int,
) -> tuple[Int[Array, "H W 2"], Float[Array, "H W"]]:
  """Where a key frame shows each pixel and how well: as given on the pose; guesses of at most 1/4 beside it.

  Args:
    skin: of the wanted frame.
    outline: from `outline_table`, of the key frame.
    at: x and y of the place in the key frame that shows the pixel's surface, in `steps` of a pixel.
    quality: of that view, in [0, 1]; 0 where the key frame does not show it.
    steps: in a pixel.
  """
  height, width = outline.shape[:2]
  flat = outline.reshape(-1, 3).astype(jnp.int32)

  def pixel(place: Int[Array, "H W 2"]) -> tuple[Int[Array, "H W 3"], Bool[Array, "H W"]]:
    x, y = ((place[..., i] + steps // 2) // steps for i in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return flat[jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)], inside

  from_skin = at.reshape(-1, 2)[skin.place]
  its_quality = quality.reshape(-1)[skin.place]
  way, inside = pixel(from_skin)
  place = from_skin + steps * way[..., :2] + skin.beyond
  there, there_inside = pixel(place)
  shown = (its_quality > 0) & (way[..., 2] >= 0) & inside & there_inside & (there[..., 2] == 1)
  shown &= (way[..., :2] * skin.beyond).sum(axis=-1) >= 0  # an outline on the other side is another one
  beside = skin.share > 0
  share = jnp.where(shown, skin.share * (1 + its_quality), 0)
  return jnp.where(beside[..., None], place, at), jnp.where(beside, share, quality)


def _steps(reach: int, steps: int) -> tuple[Int[np.ndarray, "N 2"], Float[np.ndarray, "N"]]:
  """`NearestSkin.beyond` and half of the share, for each step to the nearest skin: rows, then columns."""
  y, x = -np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)  # from the skin to the pixel
  distance = np.hypot(x, y)
  outside = 1 - 1 / np.maximum(distance, 1)  # the first pixel beside the pose is one away
  beyond = np.rint(steps * outside * np.stack([x, y])).T.astype(np.int32)
  share = np.where((distance > 0) & (distance <= reach), (reach + 1 - distance) / reach, 0)
  return beyond, (_GUESS / 2 * np.minimum(share, 1)).astype(np.float32)
