"""A texture looked up for wanted poses, on the device: what the pose stem sees beside the pose render.

Channels of `look_up`, all in [0, 1], for K key frames (`texture_channels(K)` of them):

  0:3        atlas RGB            3          its coverage
  4+4k:7+4k  key frame k, RGB     7+4k       how well it shows the surface that is wanted here, 0 not at all;
                                             beside the pose at most 1/4: a guess, see beyond.py
  4+4K:7+4K  the room (plate)     7+4K       its coverage

Where coverage is 0 colours are 0. A frame's channels depend on its own surface map and on the texture alone, so
clips can be divided, resumed and sharded anywhere. They are equal bit for bit however they are: positions and weights
are whole multiples of small powers of two, so that sums have no rounding and their order does not matter.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body.face_crop import PLACE_STEPS
from anchor_jax.core.shapes import Array, Bool, Float, Int, UInt8
from anchor_jax.texture.beyond import NearestSkin, guess, nearest_skin, reach_inside
from anchor_jax.texture.inverse import inverse_table
from anchor_jax.texture.outline import outline_table
from anchor_jax.texture.stored import Texture
from anchor_jax.texture.texels import CHART_TEXELS, LEVELS, TEXELS

ATLAS_CHANNELS = KEY_FRAME_CHANNELS = PLATE_CHANNELS = 4
# Texels whose places in a key frame differ by more pixels than this lie on different sides of an occlusion.
_LARGEST_JUMP = 4.0
_LARGEST_STEP = 96  # levels of u and v between neighbouring pixels; more is an occlusion
_GUESSED_STEP = 8
_SHARES = 2 * LEVELS // TEXELS  # u and v lie on this fraction of a texel, and so do bilinear weights
_LEAST_QUALITY = 1 / 64  # of a view; below it is a guess from the edge of what the key frame shows
_VIEW, _LARGEST_VIEW = 4096, 2**17  # pixels a texel are multiples of 1 / _VIEW
_STEPS = PLACE_STEPS  # places in pictures are multiples of this fraction of a pixel


class LookUpTables(NamedTuple):
  """A texture as the device needs it; a pytree of arrays. P texels, K key frames.

  Attributes:
    wraps: for each chart, whether it is periodic in u.
    atlas: RGB and coverage of each texel.
    key_places: for each key frame, x and y in sixteenths of a pixel where it shows the texel, and the pixels that it
      spends on it, in 1/4096; whole numbers.
    key_frames: their pictures.
    key_outlines: what they show beside their poses, from `outline_table`.
    plate: RGB of the room, and coverage.
  """

  wraps: Bool[Array, " charts"]
  atlas: UInt8[Array, "P 4"]
  key_places: Float[Array, "K P 3"]
  key_frames: UInt8[Array, "K h w 3"]
  key_outlines: Int[Array, "K h w 3"]
  plate: UInt8[Array, "H W 4"]


def texture_channels(key_frames: int) -> int:
  """Number of channels that `look_up` gives."""
  return ATLAS_CHANNELS + KEY_FRAME_CHANNELS * key_frames + PLATE_CHANNELS


def look_up_tables(texture: Texture, key_frames: int) -> LookUpTables:
  """Prepares a texture on the host, once a person (about 0.1 s a key frame).

  Args:
    texture: of the person.
    key_frames: how many key frames the networks see. Further ones are left out; missing ones count as showing nothing.
  """
  wraps = np.array([periodic for _, periodic in texture.charts])
  pictures = np.zeros((key_frames, *texture.key_frames.shape[1:]), np.uint8)
  places = np.zeros((key_frames, len(wraps) * CHART_TEXELS, 3), np.float32)
  plate = np.concatenate([texture.plate, texture.plate_coverage[..., None]], axis=-1)
  outlines = np.zeros(pictures.shape, np.int16)
  tables = [inverse_table(surface, wraps) for surface in texture.key_surfaces[:key_frames]]
  for number, table in enumerate(tables):
    pictures[number] = texture.key_frames[number]
    mask = None if texture.key_masks is None else texture.key_masks[number]
    surface, reach = texture.key_surfaces[number], reach_inside(texture.key_frames.shape[1])
    outlines[number] = outline_table(surface, pictures[number], mask, plate, reach)
    seen = table[..., 2:] > 0
    places[number, :, :2] = np.rint(np.where(seen, table[..., :2], 0) * _STEPS).reshape(-1, 2)
    places[number, :, 2] = np.clip(np.ceil(table[..., 2] * _VIEW), 0, _LARGEST_VIEW).reshape(-1)
  atlas = np.concatenate([texture.atlas, texture.coverage[..., None]], axis=-1).reshape(-1, 4)
  return LookUpTables(*(jnp.asarray(array) for array in (wraps, atlas, places, pictures, outlines, plate)))


def look_up(tables: LookUpTables, surface: UInt8[Array, "T H W 3"]) -> Float[Array, "T H W C"]:
  """The channels for wanted surface maps; see the top of this file for their order.

  Args:
    tables: from `look_up_tables`; the plate as large as the surface maps.
    surface: surface maps (chart, u, v) of the wanted poses.
  """
  if tables.plate.shape[:2] != surface.shape[1:3]:
    raise ValueError(f"a plate of {tables.plate.shape[:2]} pixels for surface maps of {surface.shape[1:3]}")
  return jax.vmap(_look_up_frame, (None, 0))(tables, surface)


def crop_looked_up(channels: UInt8[Array, "H W C"], places: Int[Array, "S S 2"]) -> UInt8[Array, "S S C"]:
  """The face crop of looked up channels, bilinear; all arithmetic is of whole numbers, so that crops are exact.

  Looking a magnified surface map up instead would leave gaps: neighbouring pixels with the same place on the body tell
  nothing of how large they are there.

  Args:
    channels: what `look_up` gives, 255 is 1; groups of RGB and coverage. Colours count by their coverage.
    places: of `body.face_crop.crop_places`.
  """
  groups = channels.reshape(*channels.shape[:2], -1, 4)
  total = jnp.zeros((*places.shape[:2], *groups.shape[2:]), jnp.int32)
  for corner, share in _bilinear(channels.shape[:2], places):
    sample = groups[corner[..., 1], corner[..., 0]].astype(jnp.int32)
    coverage = share[..., None, None] * sample[..., 3:]
    total += jnp.concatenate([coverage * sample[..., :3], coverage], axis=-1)
  colour, coverage = total[..., :3], total[..., 3:]
  divided = lambda values, by: (2 * values + by) // (2 * by)  # and rounded
  made = jnp.concatenate([divided(colour, jnp.maximum(coverage, 1)), divided(coverage, _STEPS**2)], axis=-1)
  made = jnp.where(made[..., 3:] > 0, made, 0)
  return made.reshape(*places.shape[:2], -1).astype(jnp.uint8)


def crop_surface(surface: UInt8[Array, "H W 3"], places: Int[Array, "S S 2"]) -> UInt8[Array, "S S 3"]:
  """The face crop of a surface map: each pixel is the nearest one of the frame's."""
  nearest = (places + _STEPS // 2) // _STEPS
  return surface[nearest[..., 1], nearest[..., 0]]


def coordinates(surface: UInt8[Array, "*T H W 3"]) -> Float[Array, "*T H W 6"]:
  """Surface maps as channels in [0, 1]: three digits that tell charts apart, then u as an angle (2), then v.

  All zero where no surface is.
  """
  number = np.arange(LEVELS)
  angle = (number + 0.5) * (2 * np.pi / LEVELS)
  chart = np.stack([number // 4**digit % 4 / 3 for digit in range(3)], axis=-1)
  around = np.stack([0.5 + 0.5 * np.cos(angle), 0.5 + 0.5 * np.sin(angle)], axis=-1)
  along = ((number + 0.5) / LEVELS)[:, None]
  codes = [jnp.asarray(table, jnp.float32)[surface[..., i]] for i, table in enumerate((chart, around, along))]
  return jnp.where(surface[..., :1] > 0, jnp.concatenate(codes, axis=-1), 0)


def _look_up_frame(tables: LookUpTables, surface: UInt8[Array, "H W 3"]) -> Float[Array, "H W C"]:
  index, weight = _corners(tables.wraps, surface)
  channels = [_from_atlas(tables.atlas, index, weight)]
  key_frames = zip(tables.key_places, tables.key_frames, tables.key_outlines, strict=True)
  area, skin = _texel_area(tables.wraps, surface), nearest_skin(surface, _STEPS)
  channels += [_from_key_frame(*key_frame, index, weight, area, skin) for key_frame in key_frames]
  plate = tables.plate.astype(jnp.float32) / 255
  channels.append(jnp.concatenate([jnp.where(plate[..., 3:] > 0, plate[..., :3], 0), plate[..., 3:]], axis=-1))
  return jnp.concatenate(channels, axis=-1)


def _corners(
  wraps: Bool[Array, " charts"], surface: UInt8[Array, "H W 3"]
) -> tuple[Int[Array, "4 H W"], Float[Array, "4 H W"]]:
  """The four texels around each pixel's position and their bilinear weights, whole numbers that sum to 64.

  No weight where no surface is.
  """
  chart = jnp.minimum(surface[..., 0].astype(jnp.int32), wraps.shape[0] - 1)
  # A texel's centre is a whole multiple of _SHARES.
  column, row = (2 * surface[..., i].astype(jnp.int32) + 1 - _SHARES // 2 for i in (1, 2))
  left, top = column // _SHARES, row // _SHARES
  periodic = wraps[chart]
  columns, rows = [], []
  for step in (0, 1):
    at = left + step
    columns.append(jnp.where(periodic, at % TEXELS, jnp.clip(at, 0, TEXELS - 1)))
    rows.append(jnp.clip(top + step, 0, TEXELS - 1) * TEXELS + chart * CHART_TEXELS)
  column_shares, row_shares = ((_SHARES - value % _SHARES, value % _SHARES) for value in (column, row))
  index = jnp.stack([rows[i] + columns[j] for i in (0, 1) for j in (0, 1)])
  weight = jnp.stack([row_shares[i] * column_shares[j] for i in (0, 1) for j in (0, 1)])
  return index, jnp.where(surface[..., 0] > 0, weight, 0).astype(jnp.float32)


def _texel_area(wraps: Bool[Array, " charts"], surface: UInt8[Array, "H W 3"]) -> Float[Array, "H W"]:
  """Texels of the chart that a pixel covers, from the change of u and v to its neighbours on the same chart.

  Where only one direction has neighbours, the other is taken to change as fast; without any, _GUESSED_STEP texels each.
  """
  chart, place = surface[..., 0], surface[..., 1:].astype(jnp.int32)
  periodic = wraps[jnp.minimum(chart, wraps.shape[0] - 1).astype(jnp.int32)]
  steps, counts = [], []
  for axis in (1, 0):
    total, count = jnp.zeros_like(place), jnp.zeros_like(chart, jnp.int32)
    for sign in (1, -1):
      change = (jnp.roll(place, -sign, axis) - place) * sign
      around = (change[..., 0] + LEVELS // 2) % LEVELS - LEVELS // 2
      change = change.at[..., 0].set(jnp.where(periodic, around, change[..., 0]))
      beside = (jnp.roll(chart, -sign, axis) == chart) & (jnp.abs(change).max(axis=-1) <= _LARGEST_STEP)
      end = jax.lax.broadcasted_iota(jnp.int32, chart.shape, axis) == (chart.shape[axis] - 1 if sign > 0 else 0)
      beside &= ~end  # roll comes back on the other side of the picture
      total += jnp.where(beside[..., None], change, 0)
      count += beside
    steps.append(total)
    counts.append(count)
  # Steps are sums over one or two neighbours, in levels of u and v.
  (a, c), (b, d) = (jnp.moveaxis(step, -1, 0) for step in steps)
  across, down = jnp.maximum(counts[0], 1), jnp.maximum(counts[1], 1)
  levels = jnp.abs(a * d - b * c) / (across * down)
  levels = jnp.where(counts[1] == 0, (a * a + c * c) / (across * across), levels)
  levels = jnp.where(counts[0] == 0, (b * b + d * d) / (down * down), levels)
  levels = jnp.where((counts[0] == 0) & (counts[1] == 0), (_GUESSED_STEP * LEVELS // TEXELS) ** 2, levels)
  return jnp.maximum(levels, 1) / (LEVELS // TEXELS) ** 2


def _over_corners(values: Float[Array, "4 H W"]) -> Float[Array, "H W"]:
  """The sum over the four texels around each pixel. Planes added one by one take a fifth of a reduction's time."""
  return values[0] + values[1] + values[2] + values[3]


def _divided(sums: Float[Array, "H W"], by: Float[Array, "H W"]) -> Int[Array, "H W"]:
  """The nearest whole number to a quotient of whole numbers, the even one of two.

  Exact also where a compiler multiplies by the reciprocal: half a unit more never reaches the next whole quotient.
  """
  above = jnp.floor((2 * sums + by + 0.5) / (2 * by))
  between = (2 * above - 1) * by == 2 * sums
  above = above.astype(jnp.int32)
  return jnp.where(between, above - above % 2, above)


def _from_atlas(
  atlas: UInt8[Array, "P 4"], index: Int[Array, "4 H W"], weight: Float[Array, "4 H W"]
) -> Float[Array, "H W 4"]:
  """Colour, weighted by coverage too, so that holes lend nothing to their neighbours; and coverage."""
  *colours, covers = (atlas[:, i][index].astype(jnp.float32) for i in range(4))
  share = weight * covers
  coverage = _over_corners(share)
  colour = [_over_corners(share * channel) / (255 * jnp.maximum(coverage, 1)) for channel in colours]
  return jnp.stack([*colour, coverage / (255 * _SHARES**2)], axis=-1)


def _from_key_frame(
  places: Float[Array, "P 3"],
  picture: UInt8[Array, "h w 3"],
  outline: Int[Array, "h w 3"],
  index: Int[Array, "4 H W"],
  weight: Float[Array, "4 H W"],
  area: Float[Array, "H W"],
  skin: NearestSkin,
) -> Float[Array, "H W 4"]:
  """Colour of the key frame where it shows the wanted surface, or is guessed to beside the pose, and how well it does.

  That is the number of pixels that it spends on what one pixel of the wanted frame shows, at most 1: less where the key
  frame sees the surface at a flatter angle, from further away or mixed with another surface.
  """
  x, y, pixels = (places[:, i][index] for i in range(3))
  share = jnp.where(pixels > 0, weight, 0)
  # Corners that the key frame shows far away from the heaviest one are on the other side of an occlusion there.
  most, heaviest_x, heaviest_y = share[0], x[0], y[0]
  for corner in range(1, 4):
    more = share[corner] > most
    most = jnp.where(more, share[corner], most)
    heaviest_x, heaviest_y = jnp.where(more, x[corner], heaviest_x), jnp.where(more, y[corner], heaviest_y)
  near = jnp.maximum(jnp.abs(x - heaviest_x), jnp.abs(y - heaviest_y)) <= _LARGEST_JUMP * _STEPS
  share = jnp.where(near, share, 0)
  total = jnp.maximum(_over_corners(share), 1)
  at = jnp.stack([_divided(_over_corners(share * place), total) for place in (x, y)], axis=-1)
  quality = jnp.minimum(_over_corners(share * pixels) * area / (_VIEW * _SHARES**2), 1)
  quality = jnp.where(quality >= _LEAST_QUALITY, quality, 0)
  at, quality = guess(skin, outline, at, quality, _STEPS)
  quality = quality[..., None]
  return jnp.concatenate([jnp.where(quality > 0, _sample(picture, at), 0), quality], axis=-1)


def _sample(picture: UInt8[Array, "h w 3"], at: Int[Array, "H W 2"]) -> Float[Array, "H W 3"]:
  """Bilinear samples of a picture in [0, 1], at places in sixteenths of a pixel; its edge repeats."""
  flat, total = picture.reshape(-1, 3), jnp.zeros((*at.shape[:2], 3))
  for corner, share in _bilinear(picture.shape[:2], at):
    sample = flat[corner[..., 1] * picture.shape[1] + corner[..., 0]]
    total += share.astype(jnp.float32)[..., None] * sample.astype(jnp.float32)
  return total / (255 * _STEPS**2)


def _bilinear(size: Sequence[int], at: Int[Array, "H W 2"]) -> Iterator[tuple[Int[Array, "H W 2"], Int[Array, "H W"]]]:
  """The four pixels (column, row) around places in sixteenths of a pixel, and their shares, which sum to 256.

  `size` is the picture's, (height, width); its edge repeats.
  """
  part, last = at % _STEPS, jnp.array(tuple(size)[::-1]) - 1
  for down in (0, 1):
    for across in (0, 1):
      corner = jnp.clip(at // _STEPS + jnp.array([across, down]), 0, last)
      share_down = part[..., 1] if down else _STEPS - part[..., 1]
      share_across = part[..., 0] if across else _STEPS - part[..., 0]
      yield corner, share_down * share_across
