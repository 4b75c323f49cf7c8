"""The look-up, on the device: from a texture and target surface maps to pose channels.

Channels of `look_up`, all in [0, 1], for K key frames (`texture_channels(K)` of them):

  0:3        atlas RGB            3          its coverage
  4+4k:7+4k  key frame k, RGB     7+4k       quality: how well it shows the target's surface, 0 for not at all;
                                             at most 1/4 beside the pose, where it is extrapolated (extrapolate.py)
  4+4K:7+4K  background plate     7+4K       its coverage

Colors are 0 where coverage or quality is 0. A frame's channels depend on its own surface map and the texture only, so
clips can be split, resumed and sharded anywhere. Results are bit-identical in any case: positions and weights are
multiples of small powers of two, so sums are exact in any order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body.face_crop import PLACE_STEPS
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Array, Bool, Float, Int, UInt8
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.bilinear import TEXEL_UNIT, neighbors, sample, texel_corners
from anchor_jax.texture.look_up.extrapolate import NearestSkin, extrapolate, nearest_skin, reach_inside
from anchor_jax.texture.look_up.inverse import inverse_table
from anchor_jax.texture.look_up.outline import outline_table
from anchor_jax.texture.stored import Texture
from anchor_jax.texture.texels import CHART_TEXELS, LEVELS, TEXELS

ATLAS_CHANNELS = KEY_FRAME_CHANNELS = PLATE_CHANNELS = 4
# Texels whose places in a key frame differ by more pixels than this lie on different sides of an occlusion, unless the
# texels themselves are large there: the square of the difference may be 8 times the pixels that show the texel.
_LARGEST_JUMP = 4.0
_FAR = 2**11  # in units of places; a difference that is larger counts as this, so that its square is exact
LARGEST_STEP = 96  # levels of u and v between neighboring pixels; more is an occlusion
_ASSUMED_STEP = 8  # texels per pixel where no neighbor lies on the same chart
_MIN_QUALITY = 1 / 64  # of a view; less comes from the extrapolated rim of the inverse table
_PIXEL_PARTS, _MAX_PIXELS = 4096, 2**17  # pixels per texel are multiples of 1 / _PIXEL_PARTS
STEPS = PLACE_STEPS  # places in pictures are multiples of 1 / STEPS of a pixel
_JUMP_BY_AREA = _PIXEL_PARTS // (8 * STEPS**2)  # (difference / STEPS)^2 <= 8 * pixels / _PIXEL_PARTS


# One array for each of the four texels around a position, or these arrays stacked.
Planes = Sequence[Float[Array, "... H W"]] | Float[Array, "4 H W"]


class LookUpTables(NamedTuple):
  """A texture in the form that the device needs: a pytree of arrays. P texels, K key frames.

  Attributes:
    wraps: for each chart, whether it is periodic in u.
    atlas: RGB and coverage of each texel.
    key_places: for each key frame and texel, x and y of the texel in sixteenths of a pixel, and the number of pixels
      that show it in 1/4096; integers.
    key_frames: the pictures.
    key_outlines: what they show beside their poses, from `outline_table`.
    plate: RGB and coverage of the background plate.
  """

  wraps: Bool[Array, " charts"]
  atlas: UInt8[Array, "P 4"]
  key_places: Float[Array, "K P 3"]
  key_frames: UInt8[Array, "K h w 3"]
  key_outlines: Int[Array, "K h w 3"]
  plate: UInt8[Array, "H W 4"]


def plate_size(tables: LookUpTables) -> FrameSize:
  """Size of the background plate, and so of the frames that the tables are for."""
  height, width = tables.plate.shape[:2]
  return FrameSize(width, height)


def texture_channels(key_frames: int) -> int:
  """Number of channels that `look_up` returns."""
  return ATLAS_CHANNELS + KEY_FRAME_CHANNELS * key_frames + PLATE_CHANNELS


def look_up_tables(texture: Texture, key_frames: int) -> LookUpTables:
  """A texture's tables, computed on the host; once per person, about 0.1 s per key frame.

  Args:
    texture: the person's.
    key_frames: number of key frames that the networks see. Surplus ones are left out; missing ones show nothing.
  """
  wraps = np.array([periodic for _, periodic in texture.charts])
  pictures = np.zeros((key_frames, *texture.key_frames.shape[1:]), np.uint8)
  places = np.zeros((key_frames, len(wraps) * CHART_TEXELS, 3), np.float32)
  plate = np.concatenate([texture.plate, texture.plate_coverage[..., None]], axis=-1)
  outlines = np.zeros(pictures.shape, np.int16)
  plates = [plate] * key_frames
  if texture.room is not None:
    shown = ShownPlate(texture)
    plates = [shown.through(camera) for camera in texture.room.key_cameras]
  tables = [inverse_table(surface, wraps) for surface in texture.key_surfaces[:key_frames]]
  for number, table in enumerate(tables):
    pictures[number] = texture.key_frames[number]
    mask = None if texture.key_masks is None else texture.key_masks[number]
    surface, reach = texture.key_surfaces[number], reach_inside(texture.key_frames.shape[1])
    outlines[number] = outline_table(surface, pictures[number], mask, plates[number], reach)
    seen = table[..., 2:] > 0
    places[number, :, :2] = np.rint(np.where(seen, table[..., :2], 0) * STEPS).reshape(-1, 2)
    places[number, :, 2] = np.clip(np.ceil(table[..., 2] * _PIXEL_PARTS), 0, _MAX_PIXELS).reshape(-1)
  atlas = np.concatenate([texture.atlas, texture.coverage[..., None]], axis=-1).reshape(-1, 4)
  return LookUpTables(*(jnp.asarray(array) for array in (wraps, atlas, places, pictures, outlines, plate)))


def look_up(
  tables: LookUpTables, surface: UInt8[Array, "T H W 3"], plates: UInt8[Array, "T H W 4"] | None = None
) -> Float[Array, "T H W C"]:
  """The channels for target surface maps, in the order that the module describes.

  Args:
    tables: from `look_up_tables`; the plate has the size of the surface maps.
    surface: surface maps (chart, u, v) of the target poses.
    plates: the background plate as each frame's camera shows it (`plate.ShownPlate`); None for a still camera.
  """
  if tables.plate.shape[:2] != surface.shape[1:3]:
    raise ValueError(f"a plate of {tables.plate.shape[:2]} pixels for surface maps of {surface.shape[1:3]}")
  if plates is None:
    return jax.vmap(_look_up_frame, (None, 0))(tables, surface)
  return jax.vmap(lambda plate, surface: _look_up_frame(tables._replace(plate=plate), surface))(plates, surface)


def crop_looked_up(channels: UInt8[Array, "H W C"], places: Int[Array, "S S 2"]) -> UInt8[Array, "S S C"]:
  """The face crop of looked-up channels, bilinear, in exact integer arithmetic.

  Looking up a magnified surface map instead would leave gaps: where neighboring pixels have the same u and v, the area
  that a pixel covers is unknown.

  Args:
    channels: from `look_up`, 0 to 255; groups of RGB and coverage. Colors are weighted by their coverage.
    places: from `body.face_crop.crop_places`.
  """
  groups = channels.reshape(*channels.shape[:2], -1, 4)
  total = jnp.zeros((*places.shape[:2], *groups.shape[2:]), jnp.int32)
  for pixel, weight in neighbors(places // STEPS, places % STEPS, STEPS):
    x, y = jnp.clip(pixel[..., 0], 0, channels.shape[1] - 1), jnp.clip(pixel[..., 1], 0, channels.shape[0] - 1)
    value = groups[y, x].astype(jnp.int32)
    coverage = weight[..., None, None] * value[..., 3:]
    total += jnp.concatenate([coverage * value[..., :3], coverage], axis=-1)
  color, coverage = total[..., :3], total[..., 3:]
  divide = lambda values, by: (2 * values + by) // (2 * by)  # rounds to nearest
  crop = jnp.concatenate([divide(color, jnp.maximum(coverage, 1)), divide(coverage, STEPS**2)], axis=-1)
  crop = jnp.where(crop[..., 3:] > 0, crop, 0)
  return crop.reshape(*places.shape[:2], -1).astype(jnp.uint8)


def crop_surface(surface: UInt8[Array, "H W 3"], places: Int[Array, "S S 2"]) -> UInt8[Array, "S S 3"]:
  """The face crop of a surface map, by nearest neighbor."""
  nearest = (places + STEPS // 2) // STEPS
  return surface[nearest[..., 1], nearest[..., 0]]


def coordinates(surface: UInt8[Array, "*T H W 3"]) -> Float[Array, "*T H W 6"]:
  """Surface maps as channels in [0, 1]: three base-4 digits of the chart, cosine and sine of u, and v.

  All zero where there is no surface.
  """
  number = np.arange(LEVELS)
  angle = (number + 0.5) * (2 * np.pi / LEVELS)
  chart = np.stack([number // 4**digit % 4 / 3 for digit in range(3)], axis=-1)
  around = np.stack([0.5 + 0.5 * np.cos(angle), 0.5 + 0.5 * np.sin(angle)], axis=-1)
  along = ((number + 0.5) / LEVELS)[:, None]
  codes = [jnp.asarray(table, jnp.float32)[surface[..., i]] for i, table in enumerate((chart, around, along))]
  return jnp.where(surface[..., :1] > 0, jnp.concatenate(codes, axis=-1), 0)


def _look_up_frame(tables: LookUpTables, surface: UInt8[Array, "H W 3"]) -> Float[Array, "H W C"]:
  index, weight = texel_corners(tables.wraps, surface)
  channels = [_from_atlas(tables.atlas, index, weight)]
  key_frames = zip(tables.key_places, tables.key_frames, tables.key_outlines, strict=True)
  area, skin = _texel_area(tables.wraps, surface), nearest_skin(surface, STEPS)
  channels += [_from_key_frame(*key_frame, index, weight, area, skin) for key_frame in key_frames]
  plate = tables.plate.astype(jnp.float32) / 255
  channels.append(jnp.concatenate([jnp.where(plate[..., 3:] > 0, plate[..., :3], 0), plate[..., 3:]], axis=-1))
  return jnp.concatenate(channels, axis=-1)


def _texel_area(wraps: Bool[Array, " charts"], surface: UInt8[Array, "H W 3"]) -> Float[Array, "H W"]:
  """Area in texels that each pixel covers, from the change of u and v to its neighbors on the same chart.

  With neighbors in one direction only, the other is assumed to change as fast; with none, both by _ASSUMED_STEP texels.
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
      beside = (jnp.roll(chart, -sign, axis) == chart) & (jnp.abs(change).max(axis=-1) <= LARGEST_STEP)
      end = jax.lax.broadcasted_iota(jnp.int32, chart.shape, axis) == (chart.shape[axis] - 1 if sign > 0 else 0)
      beside &= ~end  # roll wraps around the picture
      total += jnp.where(beside[..., None], change, 0)
      count += beside
    steps.append(total)
    counts.append(count)
  return area_of_steps([tuple(jnp.moveaxis(step, -1, 0)) for step in steps], counts)


def area_of_steps(
  steps: Sequence[tuple[Int[Array, "H W"], Int[Array, "H W"]]], counts: Sequence[Int[Array, "H W"]]
) -> Float[Array, "H W"]:
  """Area in texels that each pixel covers.

  Args:
    steps: change of u and v from pixel to pixel, in levels, along rows and then along columns: sums over the neighbors.
    counts: number of those neighbors in the row and in the column, 0 to 2.
  """
  (a, c), (b, d) = steps  # the area is a determinant
  across, down = jnp.maximum(counts[0], 1), jnp.maximum(counts[1], 1)
  levels = jnp.abs(a * d - b * c) / (across * down)
  levels = jnp.where(counts[1] == 0, (a * a + c * c) / (across * across), levels)
  levels = jnp.where(counts[0] == 0, (b * b + d * d) / (down * down), levels)
  levels = jnp.where((counts[0] == 0) & (counts[1] == 0), (_ASSUMED_STEP * LEVELS // TEXELS) ** 2, levels)
  return jnp.maximum(levels, 1) / (LEVELS // TEXELS) ** 2


def over_corners(values: Planes) -> Float[Array, "*K H W"]:
  """Sum over the four texels around each pixel; adding the planes one by one is five times as fast as a reduction."""
  return values[0] + values[1] + values[2] + values[3]


def _divided(sums: Float[Array, "*K H W"], by: Float[Array, "*K H W"]) -> Int[Array, "*K H W"]:
  """A quotient of integers, rounded to the nearest integer, ties to even.

  Exact even where a compiler multiplies by the reciprocal, since the added half never reaches the next quotient.
  """
  above = jnp.floor((2 * sums + by + 0.5) / (2 * by))
  between = (2 * above - 1) * by == 2 * sums
  above = above.astype(jnp.int32)
  return jnp.where(between, above - above % 2, above)


def _from_atlas(
  atlas: UInt8[Array, "P 4"], index: Int[Array, "4 H W"], weight: Float[Array, "4 H W"]
) -> Float[Array, "H W 4"]:
  """RGB and coverage; colors are weighted by coverage, so that holes do not darken their neighbors."""
  *colors, covers = (atlas[:, i][index].astype(jnp.float32) for i in range(4))
  share = weight * covers
  coverage = over_corners(share)
  color = [over_corners(share * channel) / (255 * jnp.maximum(coverage, 1)) for channel in colors]
  return jnp.stack([*color, coverage / (255 * TEXEL_UNIT**2)], axis=-1)


def view_of_texels(
  x: Planes, y: Planes, pixels: Planes, weight: Planes, area: Float[Array, "H W"]
) -> tuple[Int[Array, "*K H W"], Int[Array, "*K H W"], Float[Array, "*K H W"]]:
  """Where a key frame shows the surface (x and y, in steps of a pixel), and its quality without extrapolation.

  Args:
    x, y, pixels: of the four texels around each position, from `LookUpTables.key_places`.
    weight: of these texels.
    area: in texels that each pixel covers.
  """
  share = [jnp.where(of_texel > 0, its, 0) for of_texel, its in zip(pixels, weight, strict=True)]
  # Texels that the key frame shows far away from the one of largest weight lie across an occlusion.
  largest, heaviest_x, heaviest_y, heaviest_pixels = share[0], x[0], y[0], pixels[0]
  for corner in range(1, 4):
    larger = share[corner] > largest
    largest = jnp.where(larger, share[corner], largest)
    heaviest_x, heaviest_y = jnp.where(larger, x[corner], heaviest_x), jnp.where(larger, y[corner], heaviest_y)
    heaviest_pixels = jnp.where(larger, pixels[corner], heaviest_pixels)
  shares, sums_x, sums_y, shown = [], [], [], []
  for corner in range(4):
    far = jnp.maximum(jnp.abs(x[corner] - heaviest_x), jnp.abs(y[corner] - heaviest_y))
    away = jnp.minimum(far, _FAR)
    near = (away <= _LARGEST_JUMP * STEPS) | (_JUMP_BY_AREA * away * away <= heaviest_pixels)
    own = jnp.where(near, share[corner], 0)
    shares.append(own)
    sums_x.append(own * x[corner])
    sums_y.append(own * y[corner])
    shown.append(own * pixels[corner])
  total = jnp.maximum(over_corners(shares), 1)
  quality = jnp.minimum(over_corners(shown) * area / (_PIXEL_PARTS * TEXEL_UNIT**2), 1)
  quality = jnp.where(quality >= _MIN_QUALITY, quality, 0)
  return _divided(over_corners(sums_x), total), _divided(over_corners(sums_y), total), quality


def _from_key_frame(
  places: Float[Array, "P 3"],
  picture: UInt8[Array, "h w 3"],
  outline: Int[Array, "h w 3"],
  index: Int[Array, "4 H W"],
  weight: Float[Array, "4 H W"],
  area: Float[Array, "H W"],
  skin: NearestSkin,
) -> Float[Array, "H W 4"]:
  """RGB of a key frame for the target surface, extrapolated beside the pose, and its quality.

  Quality is the number of key frame pixels for what one pixel of the target shows, at most 1. It is less where the key
  frame sees the surface at a flatter angle, from farther away, or mixed with another surface.
  """
  x, y, pixels = (places[:, i][index] for i in range(3))
  *at, quality = view_of_texels(x, y, pixels, weight, area)
  at = jnp.stack(at, axis=-1)
  at, quality = extrapolate(skin, outline, at, quality, STEPS)
  quality = quality[..., None]
  color = sample(picture, at // STEPS, at % STEPS, STEPS) / (255 * STEPS**2)
  return jnp.concatenate([jnp.where(quality > 0, color, 0), quality], axis=-1)
