"""Matting: separates the person from the room by the difference to the film's background plate, near the body."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

_HAIR, _BODY_ERROR = 1 / 10, 1 / 40  # of the height: reach of hair and clothes beyond the body; error of the body
_LIGHT = 1 / 6  # of the height: standard deviation of the blur that separates a change of light from the person
_GRAIN = 0.8  # pixels: standard deviation of the smoothing before pictures are compared
_INSIDE, _OUTSIDE = (1.0, 6.0), (6.0, 20.0)  # gray levels above the plate's error where alpha starts and where it is 1
_SHADOW = (0.55, 1.0)  # share of the light that a shadowed wall still gets; such pixels belong to the room
_ERROR_DEVIATIONS = 2.0  # standard deviations of the plate's error that count as no difference
_MIN_ALPHA = 0.25  # smaller alphas become 0
_SMOOTH = 64.0  # squared gray levels: edges of the picture below this variance do not shape the alpha
_MIN_DIVISOR = 0.1  # alpha below which the person's color is not amplified further


def person_alpha(
  picture: UInt8[NdArray, "H W 3"],
  body: Bool[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"],
  known: Bool[NdArray, "H W"],
) -> tuple[Float[NdArray, "H W"], Float[NdArray, "H W 3"]]:
  """Returns the person's alpha, 0 to 1, and the person's colors without the room that shines through.

  Alpha is 1 well inside the body and 0 far from it. In between it comes from the difference to the plate, above the
  plate's own error, after the plate's light is adjusted to the picture's. Pixels that look like the plate in shadow
  belong to the room. Where the plate is unknown, alpha is the body's mask.

  Args:
    picture: the person in the room.
    body: mask of the pose's body; hair and clothes may reach beyond it.
    plate: the room without the person.
    known: mask of the plate's known pixels.
  """
  height = len(picture)
  # Pixels of the plate next to unknown ones may be mixed with the person.
  known = cv2.erode(known.astype(np.uint8), _disc(2), borderValue=1).astype(bool)
  inside = body.astype(np.uint8)
  near = cv2.dilate(inside, _disc(height * _HAIR)).astype(bool)
  deep = cv2.erode(inside, _disc(height * _BODY_ERROR), borderValue=1).astype(bool)
  seen = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _GRAIN)
  room = cv2.GaussianBlur(plate.astype(np.float32), (0, 0), _GRAIN)
  surely_room = (known & ~near).astype(np.float32)
  blur = lambda image: cv2.GaussianBlur(image, (0, 0), height * _LIGHT, borderType=cv2.BORDER_REFLECT)
  light = blur((seen - room) * surely_room[..., None]) / np.maximum(blur(surely_room), 1e-3)[..., None]
  room = room + light
  far = np.sqrt(((seen - room) ** 2).mean(axis=-1))
  shade = np.clip((seen * room).sum(axis=-1) / np.maximum((room**2).sum(axis=-1), 1), *_SHADOW)
  shaded = np.sqrt(((seen - shade[..., None] * room) ** 2).mean(axis=-1))
  error = _ERROR_DEVIATIONS * float(np.sqrt((far[surely_room > 0] ** 2).mean())) if surely_room.any() else 0.0
  ramp = lambda far, ends: np.clip((far - error - ends[0]) / (ends[1] - ends[0]), 0, 1)
  alpha = np.where(body, ramp((far + shaded) / 2, _INSIDE), ramp(shaded, _OUTSIDE))
  alpha = np.where(known, alpha, body)
  alpha = np.where(deep, 1, np.where(near, alpha, 0)).astype(np.float32)
  gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
  alpha = _guided_filter(gray, _connected(alpha, deep), max(1, round(height / 128)))
  alpha = np.clip((alpha - _MIN_ALPHA) / (1 - _MIN_ALPHA), 0, 1)  # a bright rim is more visible than a lost thin strand
  alpha = np.where(deep, 1, np.where(near, alpha, 0)).astype(np.float32)
  behind = plate.astype(np.float32) + light
  own = (picture - (1 - alpha[..., None]) * behind) / np.maximum(alpha, _MIN_DIVISOR)[..., None]
  own = np.where((known & (alpha < 1))[..., None], np.clip(own, 0, 255), picture).astype(np.float32)
  return alpha, own


def _disc(radius: float) -> UInt8[NdArray, "D D"]:
  side = 2 * max(1, round(radius)) + 1
  return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)


def _connected(alpha: Float[NdArray, "H W"], deep: Bool[NdArray, "H W"]) -> Float[NdArray, "H W"]:
  """Alpha without patches that are disconnected from the person, and with small holes filled."""
  labels = _components(alpha > 0.2, 8)
  person = np.isin(labels, np.setdiff1d(np.unique(labels[deep]), 0))
  labels = _components(alpha < 0.8, 4)
  edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
  # Larger gaps, such as between an arm and the body, show the room.
  counts = np.bincount(labels.ravel())
  holes = (labels > 0) & ~np.isin(labels, edge) & (counts[labels] < len(alpha) ** 2 / 1000)
  return np.where(holes, 1, np.where(person, alpha, 0)).astype(np.float32)


def _components(mask: Bool[NdArray, "H W"], connectivity: int) -> Int[NdArray, "H W"]:
  """Labels of the connected components of a mask, from 1; 0 outside of it."""
  return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[1], np.int64)


def _guided_filter(guide: UInt8[NdArray, "H W"], alpha: Float[NdArray, "H W"], radius: int) -> Float[NdArray, "H W"]:
  """Alpha smoothed along the edges of the picture (guided filter; He, Sun & Tang 2010, equations 5 and 6)."""
  mean = lambda image: cv2.blur(image, (2 * radius + 1, 2 * radius + 1))
  gray = guide.astype(np.float32)
  middle, level = mean(gray), mean(alpha)
  slope = (mean(gray * alpha) - middle * level) / (mean(gray * gray) - middle * middle + _SMOOTH)
  offset = level - slope * middle
  return np.clip(mean(slope) * gray + mean(offset), 0, 1)
