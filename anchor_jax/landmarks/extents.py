"""Extents: where a person's head, hands and body are in a film's picture, over all frames.

The face mesh ends at the hairline, so hair comes from the person masks above and beside it. What the landmark model
places outside the picture is a guess and does not count.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.landmarks.tracks import NOSE, SHOULDERS, Track

_SAMPLES = 16  # masks that are looked at
_MASK_SIDE = 120  # pixels, about, of the shorter side of a mask in which the person is looked for
_SHOWN = 127  # gray levels; the person's share of a pixel in a mask
_HAIR = 0.35, 1.1  # above the face mesh, least and most, in heights of the mesh; a bare skull has the least
_BESIDE = 0.15, 0.8  # beside it, in widths
_USUAL_HAIR = 0.5, 0.25  # above and beside, without a mask
_HAIR_PERCENTILE = 80  # of the masks: hands above the head do not count as hair
# Of the five landmarks' scale, the larger one of the eyes' distance and their distance from the mouth: a face mesh
# from the eyes up, down, and to either side.
_MESH = 1.05, 1.55, 1.0
_OUT = 0.15  # of a face's area; with more outside the picture the head is cut off


class Extents(NamedTuple):
  """Where a person is, in pixels of the film; boxes are left, top, right, bottom.

  Attributes:
    face: [T 4] boxes of the face mesh in the frames that show a face.
    head: [T 4] boxes of the head with its hair, in the same frames.
    hands: [N 4] boxes of hands that were seen, or of all that may hold them; within the picture.
    body: [M 4] boxes of the full person in frames spread over the film, within the picture.
  """

  face: Float[NdArray, "T 4"]
  head: Float[NdArray, "T 4"]
  hands: Float[NdArray, "N 4"]
  body: Float[NdArray, "M 4"]

  def inside(self, left: float, top: float, right: float, bottom: float) -> float:
    """Returns the share of the frames with a face whose face is inside a rectangle; 1 if no frame shows a face."""
    if not len(self.face):
      return 1.0
    x0, y0, x1, y1 = self.face.T
    across = np.clip(np.minimum(x1, right) - np.maximum(x0, left), 0, None) / np.maximum(x1 - x0, 1e-6)
    down = np.clip(np.minimum(y1, bottom) - np.maximum(y0, top), 0, None) / np.maximum(y1 - y0, 1e-6)
    return float((across * down >= 1 - _OUT).mean())


def join_extents(parts: Iterable[Extents]) -> Extents:
  """Returns the extents over several stretches of film."""
  return Extents(*(np.concatenate(boxes) for boxes in zip(*parts)))


def track_extents(track: Track) -> Extents:
  """Returns the extents of the person in a filled track."""
  picture = track.width, track.height
  found = np.ones(len(track), bool) if track.has_body is None else track.has_body
  with_face = found & track.has_face & np.isfinite(track.face[:, 0, 0])
  face = _boxes(track.face[with_face]) if with_face.any() else _heads(track, found)
  numbers = np.flatnonzero(with_face if with_face.any() else found)
  chosen = np.unique(np.linspace(0, len(numbers) - 1, min(_SAMPLES, len(numbers))).round().astype(int))
  masks = [track.mask(int(numbers[place])) > _SHOWN for place in chosen] if track.masks else []
  hands = track.hands[found] if track.has_hands is None else track.hands[track.has_hands & found[:, None]]
  body = _mask_boxes(masks) if masks else _points_boxes(track, found)
  return Extents(face, _with_hair(face, chosen, masks), _inside(_boxes(hands.reshape(-1, 21, 3)), picture), body)


def landmark_extents(
  landmarks: Float[NdArray, "T 5 2"], masks: Iterable[UInt8[NdArray, "H W"]] = (), picture: tuple[int, int] = (0, 0)
) -> Extents:
  """Returns the extents of a person whose face landmarks and person masks are known, as in a sidecar.

  Without masks, they are those of a head with hair of usual size, without hands and body.

  Args:
    landmarks: five a frame, NaN where missing.
    masks: of all frames, in order, consumed one at a time; or none.
    picture: width and height of the film.
  """
  seen = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
  points = landmarks[seen].astype(np.float64)
  eyes, mouth = points[:, :2].mean(axis=1), points[:, 3:].mean(axis=1)
  scale = np.maximum(np.linalg.norm(points[:, 0] - points[:, 1], axis=-1), np.linalg.norm(eyes - mouth, axis=-1))
  middle, (up, down, aside) = (eyes[:, 0] + mouth[:, 0]) / 2, _MESH
  face = np.stack(
    [middle - aside * scale, eyes[:, 1] - up * scale, middle + aside * scale, eyes[:, 1] + down * scale], axis=1
  )
  numbers = np.flatnonzero(seen)
  wanted = set(np.linspace(0, len(landmarks) - 1, min(_SAMPLES, len(landmarks))).round().astype(int).tolist())
  kept = {number: mask > _SHOWN for number, mask in enumerate(masks) if number in wanted}
  both = [(int(np.searchsorted(numbers, number)), mask) for number, mask in kept.items() if seen[number]]
  head = _with_hair(face, np.array([place for place, _ in both], int), [mask for _, mask in both])
  body = _mask_boxes(list(kept.values()))
  return Extents(face, head, _inside(body, picture), body)


def _boxes(points: Float[NdArray, "N K D"]) -> Float[NdArray, "N 4"]:
  """Boxes around sets of points."""
  return np.concatenate([points[..., :2].min(axis=1), points[..., :2].max(axis=1)], axis=1).astype(np.float64)


def _inside(boxes: Float[NdArray, "N 4"], picture: tuple[int, int]) -> Float[NdArray, "M 4"]:
  """The parts of boxes within the picture; boxes outside it are left out."""
  clipped = np.clip(boxes, 0, np.array([*picture, *picture], np.float64))
  return clipped[(clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])]


def _heads(track: Track, found: Bool[NdArray, " T"]) -> Float[NdArray, "N 4"]:
  """Boxes where the face should be, from nose and shoulders alone."""
  nose, unit = track.body[found, NOSE, :2].astype(np.float64), track.shoulder_width
  return np.concatenate([nose - (0.2 * unit, 0.3 * unit), nose + (0.2 * unit, 0.25 * unit)], axis=1)


def _with_hair(
  face: Float[NdArray, "T 4"], chosen: NdArray, masks: list[Bool[NdArray, "H W"]]
) -> Float[NdArray, "T 4"]:
  """Boxes of heads, from those of their face meshes and the masks of the `chosen` ones."""
  measured = [_hair(box, mask) for box, mask in zip(face[chosen], masks)]
  above, beside = np.percentile(measured, _HAIR_PERCENTILE, axis=0) if measured else _USUAL_HAIR
  width, height = face[:, 2] - face[:, 0], face[:, 3] - face[:, 1]
  above, beside = np.clip(above, *_HAIR) * height, np.clip(beside, *_BESIDE) * width
  return np.stack([face[:, 0] - beside, face[:, 1] - above, face[:, 2] + beside, face[:, 3]], axis=1)


def _hair(face: Float[NdArray, "4"], mask: Bool[NdArray, "H W"]) -> tuple[float, float]:
  """How far the mask reaches above a face, in its heights, and to its wider side in its upper half, in its widths."""
  left, top, right, bottom = face
  width, height = max(right - left, 1.0), max(bottom - top, 1.0)
  rows, columns = mask.shape
  x0, x1 = (int(np.clip(round(x), 0, columns)) for x in (left, right))
  y0, y1 = (int(np.clip(round(y), 0, rows)) for y in (top, (top + bottom) / 2))
  if x0 >= x1 or y0 >= y1:
    return _USUAL_HAIR
  person = mask[:y0, x0:x1].mean(axis=1) > 0.25  # from the picture's top to the face; a narrower strip is no hair
  empty = np.flatnonzero(~person)
  above = top - (empty[-1] + 1 if len(empty) else 0)
  beside = []
  shown = mask[y0:y1].mean(axis=0) > 0.5
  for outward, edge in ((shown[:x0][::-1], left), (shown[x1:], columns - right)):
    gap = np.flatnonzero(~outward)
    beside.append(float(gap[0]) if len(gap) else max(edge, 0.0))
  return float(above) / height, max(beside) / width


def _mask_boxes(masks: list[Bool[NdArray, "H W"]]) -> Float[NdArray, "M 4"]:
  """Boxes around the largest connected part of each mask that is not empty."""
  boxes = []
  for mask in masks:
    step = max(1, min(mask.shape) // _MASK_SIDE)
    _, _, parts, _ = cv2.connectedComponentsWithStats(mask[::step, ::step].astype(np.uint8))
    if len(parts) > 1:  # the first is the background
      left, top, width, height, _ = parts[1:][parts[1:, cv2.CC_STAT_AREA].argmax()]
      boxes.append((left * step, top * step, (left + width) * step, (top + height) * step))
  return np.array(boxes, np.float64).reshape(-1, 4)


def _points_boxes(track: Track, found: Bool[NdArray, " T"]) -> Float[NdArray, "N 4"]:
  """Boxes around the body's points, without masks: shoulders with the muscles on them, down to the hips."""
  points, unit = track.body[found].astype(np.float64), track.shoulder_width
  shoulders, hips = points[:, SHOULDERS, :2], points[:, 23:25, 1].mean(axis=1, keepdims=True)
  left, right = shoulders[..., 0].min(axis=1), shoulders[..., 0].max(axis=1)
  box = np.stack([left - 0.25 * unit, points[:, NOSE, 1], right + 0.25 * unit, hips[:, 0] + 0.4 * unit], axis=1)
  return _inside(box, (track.width, track.height))
