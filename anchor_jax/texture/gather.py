"""Gathers a person's texture from a film, in one pass that allows any block of the film to be left out afterwards."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.body.charts import CHARTS, FINGERS
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.texture.background.camera_path import STILL
from anchor_jax.texture.background.nearby import nearby
from anchor_jax.texture.background.plate import RoomSums, ShownPlate
from anchor_jax.texture.blocks import Blocks
from anchor_jax.texture.key_frames import Candidate, choose, is_candidate, judge
from anchor_jax.texture.matte import film_alpha, is_soft, own_colors
from anchor_jax.texture.robust import BlockSums, Colors
from anchor_jax.texture.stored import SEEN, Texture
from anchor_jax.texture.texels import CHART_TEXELS, TEXELS, checked_wraps, inner_pixels, nearest, positions

KEY_FRAMES = 3
# On unseen poses of the demo's person: 22.6 dB, SSIM 0.756. Without sharpening SSIM is 0.747, and 0.741 if each sample
# is also spread over four texels.
_EDGE = 0.5  # weight of pixels whose color may be mixed with another surface's
_SHARPEN = 0.4  # unsharp mask, against the blur of averaging and of interpolating between texels
_PRIOR = 2.0  # weight, in samples, of the surrounding color in a texel's own
_BUFFER = 2**18  # samples that are summed at once
_MIN_WEIGHT = 0.05  # of the samples of a texel that counts as seen
_FILLED_LEVELS = 3  # holes of up to 2^3 texels are filled from their surroundings
_FAR_TEXEL = 8  # coverage of texels of a chart whose color comes from farther away, in films with soft masks
_SLEEVE = 1 / 64  # of the picture's height: how far hands and sleeves may reach beyond their pose
_IN_FRONT = ("forearm", "palm", "hand_back", *FINGERS)  # left and right; parts that occlude others
_FACE = ("face", "nose", "mouth", "upper_lip", "lower_lip", "eye", "upper_lid", "lower_lid")
PLATE_MARGIN = 1 / 40  # of the picture's height around the person, for outline and shadow
# The same around a soft mask, and the share (of 255) from which the person begins.
_SOFT_MARGIN, _SOFT_ROOM = 1 / 64, 12


class FilmFrame(NamedTuple):
  """A frame of the film with its annotations.

  Attributes:
    frame: RGB.
    surface: surface map (chart, u, v); chart 0 where the pose render shows no body.
    person_mask: 255 where the person is; between 0 and 255 near the outline if the film's masks are soft.
    landmarks: five points of the face, NaN where missing.
  """

  frame: UInt8[NdArray, "H W 3"]
  surface: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]


@dataclasses.dataclass(frozen=True)
class Gathered:
  """Sums over a film by block, and its key frames; `gather` returns it.

  Attributes:
    blocks: the film's.
    charts: name and whether u is periodic, for each chart by number; the first is "none".
    measures: body measures of the person, where known.
  """

  blocks: Blocks
  charts: tuple[tuple[str, bool], ...]
  _atlas: BlockSums
  _room: RoomSums
  _size: tuple[int, int]
  _key_frames: dict[int | None, tuple[int, ...]]
  _pictures: dict[int, FilmFrame]
  _soft: bool
  _cameras: Float[NdArray, "T 4"] | None = None
  measures: BodyMeasures | None = None

  def key_frames(self, block: int | None = None) -> tuple[int, ...]:
    """Frame numbers of the key frames that the frames of `block` may see, the most useful first."""
    return self._key_frames[block]

  def texture(self, block: int | None = None) -> Texture:
    """The texture that the frames of a block may see; for None, that of the entire film.

    It contains nothing of the block and its neighbors (see `Blocks`). If nothing is left, all coverage is 0 and there
    are no key frames.
    """
    seen = self.blocks.seen_by(block)
    texels = self._atlas.colors(seen, _MIN_WEIGHT)
    atlas, coverage = _fill(texels, len(self.charts))
    plate, room = self._room.plate_and_room(seen, self._soft)
    if room is not None and self._cameras is not None:
      room = dataclasses.replace(room, key_cameras=self._cameras[list(self._key_frames[block])])
    if self._soft:
      atlas, coverage = _continued(atlas, coverage)
    height, width = self._size
    empty = [np.zeros((0, height, width, *last), np.uint8) for last in ((3,), (3,), ())]
    texture = Texture(
      charts=self.charts,
      atlas=atlas,
      coverage=coverage,
      spread=_to_bytes(texels.spread).reshape(len(self.charts), TEXELS, TEXELS),
      plate=np.ascontiguousarray(plate[..., :3]),
      plate_coverage=np.ascontiguousarray(plate[..., 3]),
      key_frames=empty[0],
      key_surfaces=empty[1],
      key_masks=empty[2],
      measures=self.measures,
      room=room,
    )
    shown = ShownPlate(texture)
    pictures = [self._key_picture(index, shown) for index in self._key_frames[block]]
    if not pictures:
      return texture
    key_frames, surfaces, masks = map(np.stack, zip(*pictures, strict=True))
    return dataclasses.replace(texture, key_frames=key_frames, key_surfaces=surfaces, key_masks=masks)

  def _key_picture(
    self, index: int, shown: ShownPlate
  ) -> tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W"]]:
    """A key frame, its surface map and its mask; if the mask is soft, without the room that shines through."""
    record = self._pictures[index]
    if is_soft(record.person_mask):
      plate = shown.through(np.array(STILL) if self._cameras is None else self._cameras[index])
      alpha, own = film_alpha(record.frame, record.person_mask, plate[..., :3], plate[..., 3] == SEEN)
      shows = cv2.dilate(alpha, np.ones((5, 5), np.uint8)) > 0  # a rim more than interpolation between pixels needs
      frame = np.where(shows[..., None], _to_bytes(own), record.frame)
      record = record._replace(frame=frame, person_mask=_to_bytes(255 * alpha))
    return record.frame, person_surface(record, self.charts), record.person_mask


def gather(
  read: Callable[[int], FilmFrame],
  blocks: Blocks,
  charts: Sequence[tuple[str, bool]] = CHARTS,
  key_frames: int = KEY_FRAMES,
  cameras: Float[NdArray, "T 4"] | None = None,
) -> Gathered:
  """Gathers the texture of the only person in a film.

  Memory does not grow with the length of the film. A minute at 12.5 frames per second and 128 pixels takes 3 s.

  Args:
    read: returns frame 0 to T - 1; called once for each in order, and again for the few key frames.
    blocks: of the film, with one number for each frame.
    charts: name and whether u is periodic, for each chart that surface maps may name.
    key_frames: number of key frames for each block.
    cameras: the camera path (texture/background/camera_path.py); None for a still camera.

  Raises:
    ValueError: no frame, frames of several sizes, or a surface map with an unknown chart.
  """
  wraps = checked_wraps([periodic for _, periodic in charts])
  is_face = np.array([name in _FACE or name.partition("_")[2] in _FACE for name, _ in charts])
  count = len(blocks.of_frame)
  atlas = BlockSums(blocks.count, len(charts) * CHART_TEXELS)
  rooms: RoomSums | None = None
  size, soft = (0, 0), False
  candidates: list[Candidate] = []
  buffer, block = _Buffer(atlas), 0
  for index in range(count):
    record = read(index)
    if rooms is None:
      size = record.frame.shape[:2]
      rooms = RoomSums(blocks.count, size, cameras)
    surface = person_surface(record, charts)
    if record.frame.shape[:2] != size or surface[..., 0].max() >= len(charts):
      raise ValueError(f"frame {index}: {record.frame.shape[:2]} pixels, first {size}; chart {surface[..., 0].max()}")
    if blocks.of_frame[index] != block:
      buffer.flush(block)
      block = int(blocks.of_frame[index])
    own = record.frame
    if is_soft(record.person_mask):
      soft, own = True, _to_bytes(own_colors(own, record.person_mask.astype(np.float32) / 255))
    buffer.add(block, *_atlas_samples(own, surface, wraps))
    rooms.add(block, index, record.frame, _room(record))
    if is_candidate(index, count):
      candidates.append(judge(index, block, record.frame, surface, record.landmarks, is_face))
  buffer.flush(block)
  if rooms is None:
    raise ValueError("a film without frames has no texture")
  chosen: dict[int | None, tuple[int, ...]] = {
    block: choose(candidates, blocks.seen_by(block), key_frames) for block in (None, *range(blocks.count))
  }
  pictures = {index: read(index) for index in sorted({index for numbers in chosen.values() for index in numbers})}
  named = tuple((name, bool(periodic)) for name, periodic in charts)
  return Gathered(blocks, named, atlas, rooms, size, chosen, pictures, soft, cameras)


def person_surface(record: FilmFrame, charts: Sequence[tuple[str, bool]]) -> UInt8[NdArray, "H W 3"]:
  """The surface map where the frame's colors certainly belong to it, 0 elsewhere.

  The pose render may be wider than the person; hands and sleeves in front of the trunk may be wider than their pose.
  """
  reach = max(1, round(record.frame.shape[0] * _SLEEVE))
  in_front = np.array([name.partition("_")[2] in _IN_FRONT for name, _ in charts])
  hand = in_front[np.minimum(record.surface[..., 0], len(charts) - 1)]
  near_hand = cv2.dilate(hand.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
  certain = (record.person_mask > 127) & (hand | ~near_hand)
  return np.where(certain[..., None], record.surface, 0).astype(np.uint8)


def _room(record: FilmFrame) -> Bool[NdArray, "H W"]:
  """Mask of the pixels that show the room: away from the person and from the pose."""
  if is_soft(record.person_mask):
    margin = max(1, round(record.frame.shape[0] * _SOFT_MARGIN))
    around = cv2.dilate(record.person_mask, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return (around < _SOFT_ROOM) & (record.surface[..., 0] == 0)
  margin = max(1, round(record.frame.shape[0] * PLATE_MARGIN))
  person = np.maximum(record.person_mask, np.where(record.surface[..., 0] > 0, 255, 0).astype(np.uint8))
  kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
  return cv2.dilate(person, kernel) < 128


def _atlas_samples(frame: NdArray, surface: NdArray, wraps: NdArray) -> tuple[NdArray, NdArray, NdArray]:
  """Texels, colors and weights of the pixels of one frame."""
  inner = inner_pixels(surface)
  frame = frame.astype(np.float32)
  sharp = frame + np.float32(_SHARPEN) * inner[..., None] * (frame - cv2.blur(frame, (3, 3)))
  y, x = np.nonzero(surface[..., 0])
  chart, u, v = surface[y, x].T
  index = nearest(chart.astype(np.int64), positions(u), positions(v), wraps)
  weight = np.where(inner[y, x], np.float32(1), np.float32(_EDGE))
  return index, sharp[y, x], weight


class _Buffer:
  """Collects samples of one block, because each sum costs a pass over all texels."""

  def __init__(self, sums: BlockSums):
    self._sums, self._parts, self._samples = sums, [], 0

  def add(self, block: int, place: NdArray, color: NdArray, weight: NdArray) -> None:
    self._parts.append((place, color, weight))
    self._samples += len(place)
    if self._samples >= _BUFFER:
      self.flush(block)

  def flush(self, block: int) -> None:
    if self._parts:
      place, color, weight = (np.concatenate(part) for part in zip(*self._parts, strict=True))
      self._sums.add(block, place, color, weight)
    self._parts, self._samples = [], 0


def _fill(texels: Colors, charts: int) -> tuple[UInt8[NdArray, "N S S 3"], UInt8[NdArray, "N S S"]]:
  """Atlas and coverage, filled coarse to fine: the fewer samples a texel has, the more the 2 x 2 to 8 x 8 around count.

  Coverage is 255 where the texel itself was seen, and halves with each coarser level that the color comes from.
  """
  weight = texels.weight[:, None]
  level = np.concatenate([texels.color * weight, weight], axis=1).reshape(charts, TEXELS, TEXELS, 4)
  levels = [level]
  for _ in range(_FILLED_LEVELS):
    side = level.shape[1] // 2
    level = level.reshape(charts, side, 2, side, 2, 4).sum(axis=(2, 4))
    levels.append(level)
  color = level[..., :3] / np.maximum(level[..., 3:], np.float32(1e-6))
  coverage = np.where(level[..., 3:] > 0, np.float32(0.5**_FILLED_LEVELS), 0)
  for depth in range(_FILLED_LEVELS - 1, -1, -1):
    around, known = (values.repeat(2, axis=1).repeat(2, axis=2) for values in (color, coverage))
    own = levels[depth]
    prior = np.where(known > 0, np.float32(_PRIOR), 0)
    color = (own[..., :3] + prior * around) / np.maximum(own[..., 3:] + prior, np.float32(1e-6))
    coverage = np.where(own[..., 3:] > 0, np.float32(0.5**depth), known)
  return _to_bytes(color), _to_bytes(255 * coverage[..., 0])


def _continued(
  atlas: UInt8[NdArray, "N S S 3"], coverage: UInt8[NdArray, "N S S"]
) -> tuple[UInt8[NdArray, "N S S 3"], UInt8[NdArray, "N S S"]]:
  """Atlas and coverage with the rest of each chart that was seen: otherwise the room would show through the body."""
  atlas, coverage = atlas.copy(), coverage.copy()
  for chart in np.flatnonzero(coverage.any(axis=(1, 2))):
    unseen = coverage[chart] == 0
    atlas[chart][unseen] = _to_bytes(nearby(atlas[chart], ~unseen))[unseen]
    coverage[chart][unseen] = _FAR_TEXEL
  return atlas, coverage


def _to_bytes(values: NdArray) -> NdArray:
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)
