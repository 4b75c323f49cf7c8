"""The look-up on CPUs: the bytes of plain.py's channels, tile by tile, only where a picture shows a person.

Five things make it several times faster than the plain form, which suits accelerators, and none changes a byte:

- Tiles that show no surface, and none within reach of extrapolation, are skipped; tiles full of surface skip the search
  for the nearest one. A tile's arrays stay in the processor's cache.
- What belongs to a texel or pixel is packed into one or two integers, so that it is read once, not once a channel.
- A pixel beside the pose is looked up as its nearest pixel with surface. So one pass serves all pixels of a tile.
- A pixel's channels are written as integers of four bytes.
- XLA copies what an operation needs into each operation that uses it, and computes it again there: the minimum over 65
  rows, say, or a table read at random. It does not cross the borders of a conditional. `_Stages` has it compute every
  step once: in the branch of a condition that holds wherever there is anything to compute.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.shapes import Array, Bool, Float, Int, PyTree, UInt8
from anchor_jax.texture.bilinear import TEXEL_UNIT
from anchor_jax.texture.look_up.extrapolate import reach_beside, step_table
from anchor_jax.texture.look_up.plain import (
  LARGEST_STEP,
  STEPS,
  LookUpTables,
  area_of_steps,
  over_corners,
  view_of_texels,
)
from anchor_jax.texture.texels import CHART_TEXELS, LEVELS, TEXELS

_SIDE = 64  # of a tile, in pixels


class _Packed(NamedTuple):
  """The tables as integers of 32 bits. P texels, K key frames of h x w pixels.

  Attributes:
    wraps: as in the tables.
    atlas: RGB and coverage, one byte each.
    columns: place of a texel in a key frame: 20 bits of x, and the upper 12 of y.
    rows: the lower 8 bits of y, and 24 of the number of pixels.
    pictures: RGB of the key frames, one byte each.
    outlines: x and y of the offsets in 15 bits each, then 1 + kind.
  """

  wraps: Bool[Array, " charts"]
  atlas: Int[Array, " P"]
  columns: Int[Array, "K P"]
  rows: Int[Array, "K P"]
  pictures: Int[Array, "K h w"]
  outlines: Int[Array, "K h w"]


class _Stages(NamedTuple):
  """Computes functions in the branch of a condition; all zeros if it does not hold."""

  condition: Bool[Array, ""]

  def __call__(self, function: Callable[..., Any], *operands: PyTree) -> Any:
    """function(*operands), or zeros of its shapes."""
    shapes = jax.eval_shape(function, *operands)
    zeros = lambda *_: jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.cond(self.condition, function, zeros, *operands)


def look_up_tiled(
  tables: LookUpTables, surface: UInt8[Array, "T H W 3"], plates: UInt8[Array, "T H W 4"] | None = None
) -> UInt8[Array, "T H W C"]:
  """The channels of `look_up`, 0 to 255, frame after frame; arguments as there."""
  packed = _pack(tables)
  if plates is None:
    return jax.lax.map(lambda frame: _look_up_frame(packed, tables.plate, frame), surface)
  return jax.lax.map(lambda frame: _look_up_frame(packed, *frame), (plates, surface))


def _pack(tables: LookUpTables) -> _Packed:
  x, y, pixels = jnp.moveaxis(tables.key_places, -1, 0).astype(jnp.int32)
  across, down, kind = jnp.moveaxis(tables.key_outlines, -1, 0).astype(jnp.int32)
  return _Packed(
    tables.wraps,
    _word(jnp.moveaxis(tables.atlas, -1, 0)),
    x << 12 | y >> 8 & 0xFFF,
    (y & 0xFF) << 24 | pixels,
    _word(jnp.moveaxis(tables.key_frames, -1, 0)),
    across << 17 | (down & 0x7FFF) << 2 | kind + 1,
  )


def _word(parts: Sequence[Array] | Array) -> Int[Array, "..."]:
  """Bytes packed into integers, the first one lowest."""
  return functools.reduce(jnp.bitwise_or, [part.astype(jnp.int32) << 8 * i for i, part in enumerate(parts)])


def _byte(word: Int[Array, "..."], number: int) -> Int[Array, "..."]:
  return word >> 8 * number & 0xFF


def _split(place: Int[Array, "..."], unit: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
  """The quotient and the rest of a place by a power of two, one instruction each."""
  return place >> unit.bit_length() - 1, place & unit - 1


def _take(values: Array, index: Int[Array, "..."]) -> Array:
  """Elements of a flattened array; an index outside of it is an error of this module, not checked."""
  return values.reshape(-1).at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_batching.sequential_vmap  # else vmap computes every tile of a batch wherever one frame needs it
def _look_up_frame(
  packed: _Packed, plate: UInt8[Array, "H W 4"], surface: UInt8[Array, "H W 3"]
) -> UInt8[Array, "H W C"]:
  height, width = surface.shape[:2]
  shows = surface[..., 0] > 0
  staged = _Stages(shows.any())
  periodic = _take(packed.wraps, jnp.minimum(surface[..., 0], packed.wraps.shape[0] - 1).astype(jnp.int32))
  where = staged(_word, [*jnp.moveaxis(surface, -1, 0), periodic])
  area = _texel_area(staged, where)
  reach, tile = reach_beside(height), (min(_SIDE, height), min(_SIDE, width))
  keys = _row_keys(staged, shows, reach)
  tops, lefts = (
    np.minimum(np.arange(0, size, step), size - step) for size, step in zip(surface.shape, tile, strict=False)
  )
  of_tile = lambda values, rows: jnp.stack(
    [jnp.stack([values[top : top + rows, left : left + tile[1]].any() for left in lefts]) for top in tops]
  ).reshape(-1)
  needed, holes = of_tile(keys < _none(reach), tile[0] + 2 * reach), of_tile(~shows, tile[0])
  numbers = jnp.nonzero(needed, size=needed.size, fill_value=0)[0].astype(jnp.int32)

  def paint(i: Int[Array, ""], words: Int[Array, "H W G"]) -> Int[Array, "H W G"]:
    top, left = (jnp.asarray(places, jnp.int32)[place] for places, place in
                 ((tops, numbers[i] // len(lefts)), (lefts, numbers[i] % len(lefts))))  # fmt: skip
    near = jax.lax.dynamic_slice(keys, (top, left), (tile[0] + 2 * reach, tile[1]))
    step = _nearest_step(_Stages(holes[numbers[i]]), near, reach)
    found = _look_up_tile(staged, _Stages(holes[numbers[i]]), packed, where, area, step, (top, left), reach)
    return jax.lax.dynamic_update_slice(words, found, (top, left, 0))

  groups = 1 + len(packed.columns)
  of_plate = _word(jnp.moveaxis(jnp.where(plate[..., 3:] > 0, plate, 0), -1, 0))
  words = jnp.concatenate([jnp.zeros((height, width, groups), jnp.int32), of_plate[..., None]], axis=-1)
  words = jax.lax.fori_loop(0, needed.sum(), paint, words)
  return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(height, width, -1)


def _texel_area(staged: _Stages, where: Int[Array, "H W"]) -> Float[Array, "H W"]:
  """Area in texels that each pixel covers; `look_up._texel_area` for packed surface maps."""
  height, width = where.shape

  def areas(where: Int[Array, "H W"], padded: Int[Array, "h w"]) -> Float[Array, "H W"]:
    steps, counts = [], []
    for axis in (1, 0):
      total, count = [0, 0], 0
      for sign in (1, -1):
        top, left = (1, 1 + sign) if axis else (1 + sign, 1)
        other = padded[top : top + height, left : left + width]
        around, along = ((_byte(other, i) - _byte(where, i)) * sign for i in (1, 2))
        wrapped = _split(around + LEVELS // 2, LEVELS)[1] - LEVELS // 2
        around = jnp.where(_byte(where, 3) > 0, wrapped, around)
        beside = (other >= 0) & (_byte(other, 0) == _byte(where, 0))
        beside &= jnp.maximum(jnp.abs(around), jnp.abs(along)) <= LARGEST_STEP
        total = [before + jnp.where(beside, change, 0) for before, change in zip(total, (around, along), strict=True)]
        count += beside.astype(jnp.int32)
      steps.append(tuple(total))
      counts.append(count)
    return area_of_steps(steps, counts)

  padded = staged(lambda where: jnp.pad(where, 1, constant_values=-1), where)
  return staged(areas, where, padded)


def _none(reach: int) -> int:
  """A key that is larger than that of any pixel with surface."""
  return 2 * (reach + 1) ** 2 * (2 * reach + 1) ** 2


def _row_keys(staged: _Stages, shows: Bool[Array, "H W"], reach: int) -> Int[Array, "h W"]:
  """The nearest surface in each row, `reach` rows longer at both ends: squared distance and step, as `nearest_skin`'s.

  Distances to either side are the smallest over 1, 2, 4, ... pixels, which doubles the range of each step.
  """
  far, side = reach + 1, 2 * reach + 1
  doublings = [1 << i for i in range(reach.bit_length())]
  margin, middle = sum(doublings), len(doublings) // 2

  def over(shifts: Sequence[int], sign: int, distance: Int[Array, "H m"]) -> Int[Array, "H n"]:
    for shift in shifts:
      away, here = (distance[:, :-shift], distance[:, shift:])[::sign]
      distance = jnp.minimum(here, away + jnp.int16(shift))
    return distance

  sides = []
  for sign, padding in ((1, (margin, 0)), (-1, (0, margin))):
    distance = jnp.where(shows, 0, far).astype(jnp.int16)
    distance = staged(lambda values, around=padding: jnp.pad(values, ((0, 0), around), constant_values=far), distance)
    for shifts in (doublings[:middle], doublings[middle:]):
      distance = staged(functools.partial(over, shifts, sign), distance)
    sides.append(distance.astype(jnp.int32))

  def packed(left: Int[Array, "H W"], right: Int[Array, "H W"]) -> Int[Array, "h W"]:
    nearest = jnp.minimum(left, right)
    across = jnp.where(left <= right, -left, right)
    keys = jnp.where(nearest <= reach, nearest**2 * side**2 + across + reach, _none(reach))
    return jnp.pad(keys, ((reach, reach), (0, 0)), constant_values=_none(reach))

  # Without any surface, zeros would mean that it is near.
  return jnp.where(shows.any(), staged(packed, *sides), _none(reach))


def _nearest_step(staged: _Stages, keys: Int[Array, "h W"], reach: int) -> Int[Array, "H W"]:
  """Number of the step to the nearest surface, for `step_table`; that of no step if there is none within reach."""
  side, height = 2 * reach + 1, keys.shape[0] - 2 * reach
  stay = (side**2 - 1) // 2

  def nearest(keys: Int[Array, "h W"]) -> Int[Array, "H W"]:
    best = jnp.full((height, keys.shape[1]), _none(reach), jnp.int32)
    for y in range(-reach, reach + 1):
      best = jnp.minimum(best, keys[reach + y : reach + y + height] + y**2 * side**2 + (y + reach) * side)
    return best

  def from_stay(best: Int[Array, "H W"]) -> Int[Array, "H W"]:
    return jnp.where(best < (reach**2 + 1) * side**2, best % side**2 - stay, 0)

  return stay + staged(from_stay, staged(nearest, keys))


def _look_up_tile(
  staged: _Stages,
  beside: _Stages,
  packed: _Packed,
  where: Int[Array, "H W"],
  area: Float[Array, "H W"],
  step: Int[Array, "h w"],
  corner: tuple[Int[Array, ""], Int[Array, ""]],
  reach: int,
) -> Int[Array, "h w G"]:
  """The words of a tile, without the background plate.

  Args:
    staged: computes what is needed everywhere.
    beside: computes what only pixels without surface need.
    packed: the tables.
    where, area: the surface map, and what each of its pixels covers.
    step: from each of the tile's pixels to its nearest one with surface.
    corner: row and column of the tile's first pixel.
    reach: pixels, of the steps.
  """
  width, side = where.shape[1], 2 * reach + 1
  offsets, weights = step_table(reach, STEPS)
  offsets = jnp.asarray(offsets[:, 0] << 16 | offsets[:, 1] & 0xFFFF)

  def at_skin(step: Int[Array, "h w"]) -> tuple[Array, ...]:
    y, x = (jax.lax.broadcasted_iota(jnp.int32, step.shape, axis) + corner[axis] for axis in (0, 1))
    skin = (y + step // side - reach) * width + x + step % side - reach
    return _take(offsets, step), _take(jnp.asarray(weights), step), _take(where, skin), _take(area, skin)

  offset, weight, there, area = staged(at_skin, step)
  index = staged(functools.partial(_corners, len(packed.wraps)), there)
  texels = staged(lambda index: [_take(packed.atlas, texel) for texel in index], index)
  shares = _corner_weights(there)
  words = [staged(_atlas_word, texels, shares, weight > 0)]
  count, charts_texels = packed.columns.shape
  if count:
    number = jnp.arange(count, dtype=jnp.int32)[:, None, None]
    of_key = lambda values, index: [_take(values, number * charts_texels + texel) for texel in index]
    columns = staged(functools.partial(of_key, packed.columns), index)
    rows = staged(functools.partial(of_key, packed.rows), index)
    x, y, quality = staged(_view, columns, rows, shares, area)
    x, y, quality = _extrapolated(beside, packed, number, (offset, weight), (x, y, quality))
    pixels = staged(functools.partial(_pixels_around, packed.pictures, number), x, y)
    words += [*staged(_key_frame_word, pixels, x, y, quality)]
  return jnp.stack(words, axis=-1)


def _texel_position(where: Int[Array, "h w"]) -> list[Int[Array, "h w"]]:
  """Column and row on the chart, in units of 1 / TEXEL_UNIT of a texel; see `bilinear.texel_corners`."""
  return [2 * _byte(where, i) + 1 - TEXEL_UNIT // 2 for i in (1, 2)]


def _corners(charts: int, where: Int[Array, "h w"]) -> list[Int[Array, "h w"]]:
  """The four texels around each position, upper ones first."""
  column, row = (_split(position, TEXEL_UNIT)[0] for position in _texel_position(where))
  first = jnp.minimum(_byte(where, 0), charts - 1) * CHART_TEXELS
  inside = lambda place: jnp.clip(place, 0, TEXELS - 1)
  columns = [jnp.where(_byte(where, 3) > 0, _split(place, TEXELS)[1], inside(place)) for place in (column, column + 1)]
  return [first + inside(place) * TEXELS + x for place in (row, row + 1) for x in columns]


def _corner_weights(where: Int[Array, "h w"]) -> list[Float[Array, "h w"]]:
  """Weights of `_corners`: integers that sum to TEXEL_UNIT squared, 0 where there is no surface."""
  right, below = (_split(position, TEXEL_UNIT)[1] for position in _texel_position(where))
  weights = [down * across for down in (TEXEL_UNIT - below, below) for across in (TEXEL_UNIT - right, right)]
  return [jnp.where(_byte(where, 0) > 0, weight, 0).astype(jnp.float32) for weight in weights]


def _atlas_word(
  texels: Sequence[Int[Array, "h w"]], weights: Sequence[Float[Array, "h w"]], beside: Bool[Array, "h w"]
) -> Int[Array, "h w"]:
  """RGB and coverage of the atlas; nothing beside the pose."""
  shares = [weight * _byte(texel, 3).astype(jnp.float32) for texel, weight in zip(texels, weights, strict=True)]
  coverage = over_corners(shares)
  sums = [
    over_corners([share * _byte(texel, i).astype(jnp.float32) for texel, share in zip(texels, shares, strict=True)])
    for i in range(3)
  ]
  colors = [total / (255 * jnp.maximum(coverage, 1)) for total in sums]
  return _in_bytes([*colors, coverage / (255 * TEXEL_UNIT**2)], ~beside)


def _view(
  columns: Sequence[Int[Array, "K h w"]],
  rows: Sequence[Int[Array, "K h w"]],
  weights: Sequence[Float[Array, "h w"]],
  area: Float[Array, "h w"],
) -> tuple[Int[Array, "K h w"], Int[Array, "K h w"], Float[Array, "K h w"]]:
  """Where the key frames show the surface, and how well."""
  x = [(first >> 12).astype(jnp.float32) for first in columns]
  y = [
    (first << 20 >> 20 << 8 | _byte(second, 3)).astype(jnp.float32) for first, second in zip(columns, rows, strict=True)
  ]
  pixels = [(second & 0xFFFFFF).astype(jnp.float32) for second in rows]
  return view_of_texels(x, y, pixels, weights, area)


def _extrapolated(
  beside: _Stages,
  packed: _Packed,
  number: Int[Array, "K 1 1"],
  skin: tuple[Int[Array, "h w"], Float[Array, "h w"]],
  view: tuple[Int[Array, "K h w"], Int[Array, "K h w"], Float[Array, "K h w"]],
) -> tuple[Int[Array, "K h w"], Int[Array, "K h w"], Float[Array, "K h w"]]:
  """Places and qualities of all pixels, given those of their nearest pixels with surface; `extrapolate.extrapolate`.

  Args:
    beside: for what only pixels without surface need.
    packed: the tables.
    number: of each key frame.
    skin: offset and weight of the steps to the nearest surface.
    view: x, y and quality there.
  """
  height, width = packed.pictures.shape[1:]
  offset, weight = skin
  right, down = offset >> 16, offset << 16 >> 16

  def outline(x: Int[Array, "K h w"], y: Int[Array, "K h w"]) -> Int[Array, "K h w"]:
    x, y = (_split(place + STEPS // 2, STEPS)[0] for place in (x, y))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = (number * height + jnp.clip(y, 0, height - 1)) * width + jnp.clip(x, 0, width - 1)
    return jnp.where(inside, _take(packed.outlines, index), 0)  # a pixel deeper inside

  def way(word: Int[Array, "K h w"]) -> tuple[Array, Array]:
    return word >> 17, word << 15 >> 17

  def moved(x: Array, y: Array, word: Array) -> tuple[Array, Array]:
    across, along = way(word)
    return x + STEPS * across + right, y + STEPS * along + down

  def chosen(x: Array, y: Array, quality: Array, first: Array, second: Array) -> tuple[Array, ...]:
    across, along = way(first)
    same_side = across * right + along * down >= 0  # not the outline of the opposite side
    visible = (quality > 0) & (first & 3 > 0) & (second & 3 == 2) & same_side
    guessed = jnp.where(visible, weight * (1 + quality), 0)
    away = weight > 0
    changed = zip((*moved(x, y, first), guessed), (x, y, quality), strict=True)
    return tuple(jnp.where(away, new, old) for new, old in changed)

  first = beside(outline, *view[:2])
  second = beside(outline, *moved(*view[:2], first))
  return jax.lax.cond(beside.condition, chosen, lambda *values: values[:3], *view, first, second)


def _pixels_around(
  pictures: Int[Array, "K H W"], number: Int[Array, "K 1 1"], x: Int[Array, "K h w"], y: Int[Array, "K h w"]
) -> list[Int[Array, "K h w"]]:
  """The four pixels around each place of the key frames, upper ones first; edges are repeated."""
  height, width = pictures.shape[1:]
  left, top = (_split(place, STEPS)[0] for place in (x, y))
  columns = [jnp.clip(left + i, 0, width - 1) for i in (0, 1)]
  rows = [(number * height + jnp.clip(top + i, 0, height - 1)) * width for i in (0, 1)]
  return [_take(pictures, row + column) for row in rows for column in columns]


def _key_frame_word(
  pixels: Sequence[Int[Array, "K h w"]],
  x: Int[Array, "K h w"],
  y: Int[Array, "K h w"],
  quality: Float[Array, "K h w"],
) -> Int[Array, "K h w"]:
  """RGB and quality of each key frame."""
  right, below = (_split(place, STEPS)[1] for place in (x, y))
  weights = [down * across for down in (STEPS - below, below) for across in (STEPS - right, right)]
  total = lambda i: sum(weight * _byte(pixel, i) for weight, pixel in zip(weights, pixels, strict=True))
  return _in_bytes([*(total(i).astype(jnp.float32) / (255 * STEPS**2) for i in range(3)), quality], quality > 0)


def _in_bytes(channels: Sequence[Float[Array, "..."]], known: Bool[Array, "..."]) -> Int[Array, "..."]:
  """Channels in [0, 1] as bytes of a word, rounded as `PoseChannels` rounds those of `look_up`.

  Selecting the known ones between division and multiplication keeps XLA from combining the two, as it does there.
  """
  return _word([jnp.rint(jnp.where(known, channel, 0) * 255) for channel in channels])
