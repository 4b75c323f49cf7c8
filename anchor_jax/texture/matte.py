"""What of a picture is the person and what the room: difference from the room that her film showed, near her body."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

_HAIR, _SURE = 1 / 10, 1 / 40  # of the height: how far hair and clothes reach beyond the body, and the body's own error
_LIGHT = 1 / 6  # of the height: standard deviation of what is taken for another light in the room
_GRAIN = 0.8  # pixels, standard deviation of the smoothing before pictures are compared
_INSIDE, _OUTSIDE = (1.0, 6.0), (6.0, 20.0)  # grey levels beyond the room's error: no share yet, and all of it
_SHADOW = (0.55, 1.0)  # of the room's light that reaches a wall behind her: that is no part of her
_TRUST = 2.0  # standard deviations of the room's error
_THIN = 0.25  # share that is taken for none
_FINE = 64.0  # square grey levels: changes of the picture smaller than that are not followed by the share
_LEAST = 0.1  # share below which a pixel's own colour is not told apart from the room's


def person_share(
  picture: UInt8[NdArray, "H W 3"],
  body: Bool[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"],
  known: Bool[NdArray, "H W"],
) -> tuple[Float[NdArray, "H W"], Float[NdArray, "H W 3"]]:
  """Returns the person's share of each pixel, 0 to 1, and her own colours, without the room that shines through.

  Well inside the body the share is 1, far from it 0. Between them it is what differs from the room, more than the room
  itself differs from its plate there; the light of the plate is first made that of the picture, and what is the plate
  in her shadow is no part of her. Where the film never
  showed the room, the body alone tells.

  Args:
    picture: the person in her room.
    body: where the pose has her body; hair and clothes may reach beyond it.
    plate: the room without her.
    known: where the plate is known.
  """
  height = len(picture)
  known = cv2.erode(known.astype(np.uint8), _disc(2), borderValue=1).astype(bool)  # beside what is not, it is mixed
  inside = body.astype(np.uint8)
  near = cv2.dilate(inside, _disc(height * _HAIR)).astype(bool)
  deep = cv2.erode(inside, _disc(height * _SURE), borderValue=1).astype(bool)
  seen = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _GRAIN)
  room = cv2.GaussianBlur(plate.astype(np.float32), (0, 0), _GRAIN)
  sure = (known & ~near).astype(np.float32)
  blur = lambda image: cv2.GaussianBlur(image, (0, 0), height * _LIGHT, borderType=cv2.BORDER_REFLECT)
  light = blur((seen - room) * sure[..., None]) / np.maximum(blur(sure), 1e-3)[..., None]
  room = room + light
  far = np.sqrt(((seen - room) ** 2).mean(axis=-1))
  shade = np.clip((seen * room).sum(axis=-1) / np.maximum((room**2).sum(axis=-1), 1), *_SHADOW)
  shaded = np.sqrt(((seen - shade[..., None] * room) ** 2).mean(axis=-1))
  error = _TRUST * float(np.sqrt((far[sure > 0] ** 2).mean())) if sure.any() else 0.0
  ramp = lambda far, ends: np.clip((far - error - ends[0]) / (ends[1] - ends[0]), 0, 1)
  share = np.where(body, ramp((far + shaded) / 2, _INSIDE), ramp(shaded, _OUTSIDE))
  share = np.where(known, share, body)
  share = np.where(deep, 1, np.where(near, share, 0)).astype(np.float32)
  share = _follow(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), _connected(share, deep), max(1, round(height / 128)))
  share = np.clip((share - _THIN) / (1 - _THIN), 0, 1)  # a light rim is seen sooner than a thin one that is missing
  share = np.where(deep, 1, np.where(near, share, 0)).astype(np.float32)
  behind = plate.astype(np.float32) + light
  own = (picture - (1 - share[..., None]) * behind) / np.maximum(share, _LEAST)[..., None]
  own = np.where((known & (share < 1))[..., None], np.clip(own, 0, 255), picture).astype(np.float32)
  return share, own


def _disc(radius: float) -> UInt8[NdArray, "D D"]:
  side = 2 * max(1, round(radius)) + 1
  return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)


def _connected(share: Float[NdArray, "H W"], deep: Bool[NdArray, "H W"]) -> Float[NdArray, "H W"]:
  """The share without patches that hang together with nothing of the person, and without holes in her."""
  labels = _patches(share > 0.2, 8)
  hers = np.isin(labels, np.setdiff1d(np.unique(labels[deep]), 0))
  labels = _patches(share < 0.8, 4)
  edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
  # a hole is small: what lies between an arm and the body is the room
  counts = np.bincount(labels.ravel())
  holes = (labels > 0) & ~np.isin(labels, edge) & (counts[labels] < len(share) ** 2 / 1000)
  return np.where(holes, 1, np.where(hers, share, 0)).astype(np.float32)


def _patches(mask: Bool[NdArray, "H W"], neighbours: int) -> Int[NdArray, "H W"]:
  """The number of the patch that each pixel is in, from 1; 0 outside."""
  return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=neighbours)[1], np.int64)


def _follow(guide: UInt8[NdArray, "H W"], share: Float[NdArray, "H W"], radius: int) -> Float[NdArray, "H W"]:
  """The share smoothed along the edges of the picture: a guided filter (He, Sun & Tang 2010, equations 5 and 6)."""
  mean = lambda image: cv2.blur(image, (2 * radius + 1, 2 * radius + 1))
  grey = guide.astype(np.float32)
  middle, level = mean(grey), mean(share)
  slope = (mean(grey * share) - middle * level) / (mean(grey * grey) - middle * middle + _FINE)
  offset = level - slope * middle
  return np.clip(mean(slope) * grey + mean(offset), 0, 1)
