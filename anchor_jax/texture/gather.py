"""Gathers a person's texture from a film in one pass, so that any block of the film can be left out afterwards."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.body.charts import CHARTS, FINGERS
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.texture.blocks import Blocks
from anchor_jax.texture.key_frames import Candidate, choose, is_candidate, judge
from anchor_jax.texture.robust import BlockSums, Colours
from anchor_jax.texture.stored import Texture
from anchor_jax.texture.texels import CHART_TEXELS, TEXELS, checked_wraps, inner_pixels, nearest, positions

KEY_FRAMES = 3
# Measured on unseen poses of the demo's person: 22.6 dB, SSIM 0.756; without sharpening 0.747, and 0.741 when samples
# are shared out among four texels too.
_EDGE = 0.5  # weight of pixels whose colour may be mixed with another surface's
_SHARPEN = 0.4  # unsharp mask, against the blur of averaging and of looking up between texels
_PRIOR = 2.0  # samples for which the colour around a texel counts in its own
_BUFFER = 2**18  # samples that are summed at once
_LEAST = 0.05  # weight that makes a texel seen
_FILLED_LEVELS = 3  # holes of up to 2^3 texels are filled from around them
_SLEEVE = 1 / 64  # of the picture's height; how far a hand or sleeve may reach beyond its pose
_BEFORE = ("forearm", "palm", "hand_back", *FINGERS)  # left and right; what comes before other parts
_FACE = ("face", "nose", "mouth", "upper_lip", "lower_lip", "eye", "upper_lid", "lower_lid")
_PLATE_MARGIN = 1 / 40  # of the picture's height around the person, where her outline and shadow are


class FilmFrame(NamedTuple):
  """What is gathered from: a picture and what each pixel of it shows.

  Attributes:
    frame: RGB.
    surface: surface map (chart, u, v); chart 0 where the pose render shows no body.
    person_mask: 255 where the person is.
    landmarks: five points of the face, NaN where missing.
  """

  frame: UInt8[NdArray, "H W 3"]
  surface: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]


@dataclasses.dataclass(frozen=True)
class Gathered:
  """What a film told, block by block; `gather` makes it.

  Attributes:
    blocks: of the film.
    charts: name and whether u is periodic, by number; the first is "none".
    measures: of the person's body, where they are known.
  """

  blocks: Blocks
  charts: tuple[tuple[str, bool], ...]
  _texture: BlockSums
  _plate: BlockSums
  _size: tuple[int, int]
  _key_frames: dict[int | None, tuple[int, ...]]
  _pictures: dict[int, tuple[NdArray, NdArray, NdArray]]
  measures: BodyMeasures | None = None

  def key_frames(self, block: int | None = None) -> tuple[int, ...]:
    """Numbers in the film of the key frames that the frames of `block` may see, the most useful first."""
    return self._key_frames[block]

  def texture(self, block: int | None = None) -> Texture:
    """The texture that the frames of a block may see; of the whole film for None.

    It holds nothing of the block and of its neighbours (see `Blocks`). Where nothing is left, coverage is 0 and there
    are no key frames.
    """
    seen = self.blocks.seen_by(block)
    texture = self._texture.colours(seen, _LEAST)
    atlas, coverage = _fill(texture, len(self.charts))
    plate = self._plate.colours(seen)
    height, width = self._size
    pictures = [self._pictures[index] for index in self._key_frames[block]]
    empty = [np.zeros((0, height, width, *last), np.uint8) for last in ((3,), (3,), ())]
    key_frames, surfaces, masks = map(np.stack, zip(*pictures, strict=True)) if pictures else empty
    shape = (len(self.charts), TEXELS, TEXELS)
    return Texture(
      charts=self.charts,
      atlas=atlas,
      coverage=coverage,
      spread=_to_bytes(texture.spread).reshape(shape),
      plate=_to_bytes(plate.colour).reshape(height, width, 3),
      plate_coverage=np.where(plate.weight > 0, 255, 0).astype(np.uint8).reshape(height, width),
      key_frames=key_frames,
      key_surfaces=surfaces,
      key_masks=masks,
      measures=self.measures,
    )


def gather(
  read: Callable[[int], FilmFrame],
  blocks: Blocks,
  charts: Sequence[tuple[str, bool]] = CHARTS,
  key_frames: int = KEY_FRAMES,
) -> Gathered:
  """Gathers the texture of the one person in a film.

  The camera stands still. Memory does not grow with the film; a minute of 12.5 frames of 128 pixels a second takes 3 s.

  Args:
    read: gives frame 0 to T - 1; asked for each once in order, and again for the few key frames.
    blocks: of the film, one number for each frame.
    charts: name and whether u is periodic, for each chart that surface maps may name.
    key_frames: how many to keep for each block.

  Raises:
    ValueError: frames of several sizes, or a surface map with an unknown chart.
  """
  wraps = checked_wraps([periodic for _, periodic in charts])
  is_face = np.array([name in _FACE or name.partition("_")[2] in _FACE for name, _ in charts])
  count = len(blocks.of_frame)
  texture = BlockSums(blocks.count, len(charts) * CHART_TEXELS)
  plate: BlockSums | None = None
  size = (0, 0)
  candidates: list[Candidate] = []
  buffer, block = _Buffer(texture), 0
  for index in range(count):
    sight = read(index)
    if plate is None:
      size = sight.frame.shape[:2]
      plate = BlockSums(blocks.count, size[0] * size[1])
    surface = person_surface(sight, charts)
    if sight.frame.shape[:2] != size or surface[..., 0].max() >= len(charts):
      raise ValueError(f"frame {index}: {sight.frame.shape[:2]} pixels, first {size}; chart {surface[..., 0].max()}")
    if blocks.of_frame[index] != block:
      buffer.flush(block)
      block = int(blocks.of_frame[index])
    buffer.add(block, *_texture_samples(sight.frame, surface, wraps))
    room = np.flatnonzero(_room(sight))
    plate.add(block, room, sight.frame.reshape(-1, 3)[room], np.ones(len(room), np.float32))
    if is_candidate(index, count):
      candidates.append(judge(index, block, sight.frame, surface, sight.landmarks, is_face))
  buffer.flush(block)
  if plate is None:
    raise ValueError("a film without frames has no texture")
  chosen: dict[int | None, tuple[int, ...]] = {
    block: choose(candidates, blocks.seen_by(block), key_frames) for block in (None, *range(blocks.count))
  }
  pictures = {}
  for index in sorted({index for numbers in chosen.values() for index in numbers}):
    sight = read(index)
    pictures[index] = sight.frame, person_surface(sight, charts), sight.person_mask
  return Gathered(blocks, tuple((name, bool(p)) for name, p in charts), texture, plate, size, chosen, pictures)


def person_surface(sight: FilmFrame, charts: Sequence[tuple[str, bool]]) -> UInt8[NdArray, "H W 3"]:
  """The surface map where its colours are known to be the surface's, 0 elsewhere.

  The pose render may be wider than the person; hands and sleeves before the trunk may be wider than their pose.
  """
  reach = max(1, round(sight.frame.shape[0] * _SLEEVE))
  before = np.array([name.partition("_")[2] in _BEFORE for name, _ in charts])
  hand = before[np.minimum(sight.surface[..., 0], len(charts) - 1)]
  beside = cv2.dilate(hand.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
  kept = (sight.person_mask > 127) & (hand | ~beside)
  return np.where(kept[..., None], sight.surface, 0).astype(np.uint8)


def _room(sight: FilmFrame) -> Bool[NdArray, "H W"]:
  """Where a frame shows the room: away from the person and from her pose."""
  margin = max(1, round(sight.frame.shape[0] * _PLATE_MARGIN))
  person = np.maximum(sight.person_mask, np.where(sight.surface[..., 0] > 0, 255, 0).astype(np.uint8))
  kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
  return cv2.dilate(person, kernel) < 128


def _texture_samples(frame: NdArray, surface: NdArray, wraps: NdArray) -> tuple[NdArray, NdArray, NdArray]:
  """Texels, colours and weights of what one frame shows."""
  inner = inner_pixels(surface)
  frame = frame.astype(np.float32)
  sharp = frame + np.float32(_SHARPEN) * inner[..., None] * (frame - cv2.blur(frame, (3, 3)))
  y, x = np.nonzero(surface[..., 0])
  chart, u, v = surface[y, x].T
  index = nearest(chart.astype(np.int64), positions(u), positions(v), wraps)
  weight = np.where(inner[y, x], np.float32(1), np.float32(_EDGE))
  return index, sharp[y, x], weight


class _Buffer:
  """Collects samples of one block, since summing few at a time costs a pass over all texels."""

  def __init__(self, sums: BlockSums):
    self._sums, self._parts, self._held = sums, [], 0

  def add(self, block: int, place: NdArray, colour: NdArray, weight: NdArray) -> None:
    self._parts.append((place, colour, weight))
    self._held += len(place)
    if self._held >= _BUFFER:
      self.flush(block)

  def flush(self, block: int) -> None:
    if self._parts:
      place, colour, weight = (np.concatenate(part) for part in zip(*self._parts, strict=True))
      self._sums.add(block, place, colour, weight)
    self._parts, self._held = [], 0


def _fill(texture: Colours, charts: int) -> tuple[UInt8[NdArray, "N S S 3"], UInt8[NdArray, "N S S"]]:
  """Textures and coverage, from coarse to fine: a texel with few samples leans on the 2 x 2, 4 x 4, 8 x 8 around it.

  Coverage is 255 where the texel itself was seen, half of it for each level above that its colour comes from.
  """
  weight = texture.weight[:, None]
  level = np.concatenate([texture.colour * weight, weight], axis=1).reshape(charts, TEXELS, TEXELS, 4)
  levels = [level]
  for _ in range(_FILLED_LEVELS):
    side = level.shape[1] // 2
    level = level.reshape(charts, side, 2, side, 2, 4).sum(axis=(2, 4))
    levels.append(level)
  colour = level[..., :3] / np.maximum(level[..., 3:], np.float32(1e-6))
  coverage = np.where(level[..., 3:] > 0, np.float32(0.5**_FILLED_LEVELS), 0)
  for depth in range(_FILLED_LEVELS - 1, -1, -1):
    around, known = (values.repeat(2, axis=1).repeat(2, axis=2) for values in (colour, coverage))
    own = levels[depth]
    prior = np.where(known > 0, np.float32(_PRIOR), 0)
    colour = (own[..., :3] + prior * around) / np.maximum(own[..., 3:] + prior, np.float32(1e-6))
    coverage = np.where(own[..., 3:] > 0, np.float32(0.5**depth), known)
  return _to_bytes(colour), _to_bytes(255 * coverage[..., 0])


def _to_bytes(values: NdArray) -> NdArray:
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)
