"""Matting: the person's share of each pixel (alpha) near the outline, and the person's own colors there.

A pixel near the outline shows alpha times the person's color plus 1 - alpha times the room's. Both colors are taken
from what surely shows them: the room's from the film's background plate where it is known, else from nearby pixels; the
person's from nearby pixels. Alpha is the pixel's distance from the room's color as a share of the person's, as far as
the two colors differ; where they do not, the rough mask that was given counts. Two rounds, because the first alpha says
better what surely shows the person.

benchmarks/matting.py measures the error near the outline of studio people with strands of hair.
"""

from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8
from anchor_jax.texture.background.nearby import nearby

_HAIR, _BODY_ERROR = 1 / 10, 1 / 40  # of the height: reach of hair and clothes beyond the body; error of the body
_SHARE_ERROR = 1 / 20, 1 / 40  # of the height: how far outside and inside of its outline a rough share may be wrong
_PERSON, _ROOM = 0.8, 0.2  # rough shares from which a pixel counts as the person's, and up to which as the room's
_LIGHT = 1 / 6  # of the height: standard deviation of the blur that separates a change of light from the person
_REDUCED = 4.0  # the same in pixels of the reduced picture in which it is computed
_SHADOW = (0.55, 1.0)  # share of the light that a shadowed wall still gets; such pixels belong to the room
_NARROW = 1 / 64  # of the height: darker lines of up to twice this width are no shadows
_FINGER = 1 / 40  # of the height: radius around a pixel in which the person's color is looked for
_GRAIN = 0.8  # pixels: standard deviation of the smoothing before pictures are compared
_PLATE_ERROR, _GUESS_ERROR = 2.0, 6.0  # gray levels: least error of the plate, and of a room that is not in it
_DEVIATIONS = 2.0, 1.5  # standard deviations, of the plate's error and of the nearby room, that are no difference
_SURE = 3.0  # errors by which the two colors must differ before they count more than the rough mask
_DOUBT = 0.3  # share of the trust that is lost where only the rough mask sees the person: skin may be like the wall
_FULL = 0.8  # of the distance between both colors, from which alpha is 1
_LEAST = 6.0  # gray levels: least distance between both colors
_ROUNDS = 2
_SURELY_PERSON, _SURELY_ROOM = 0.97, 0.03  # alphas of the round before
_MIN_ALPHA = 0.1  # smaller alphas become 0
_SMOOTH = 4.0  # squared gray levels: edges of the picture below this variance do not shape the alpha
_MIN_DIVISOR, _CERTAIN = 0.1, 0.5  # alphas up to which the person's color is not amplified, and counts less


def person_alpha(
  picture: UInt8[NdArray, "H W 3"],
  body: Bool[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"],
  known: Bool[NdArray, "H W"],
) -> tuple[Float[NdArray, "H W"], Float[NdArray, "H W 3"]]:
  """Returns the person's alpha in a generated frame, 0 to 1, and the colors without the room that shines through.

  Alpha is 1 well inside the body and 0 far from it. In between it comes from the difference to the plate, above the
  plate's own error, after the plate's light is adjusted to the picture's. Pixels that look like the plate in shadow
  belong to the room. Where the plate is unknown, the body's mask counts more.

  Args:
    picture: the person in the room.
    body: mask of the pose's body; hair and clothes may reach beyond it.
    plate: the room without the person.
    known: mask of the plate's known pixels.
  """
  near, deep = _zones(body, body, _HAIR, _BODY_ERROR)
  matte = _matte(picture, body.astype(np.float32), near, deep, plate, known)
  return matte.alpha, _colors(picture, matte)


def film_alpha(
  picture: UInt8[NdArray, "H W 3"],
  share: UInt8[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"] | None = None,
  known: Bool[NdArray, "H W"] | None = None,
) -> tuple[Float[NdArray, "H W"], Float[NdArray, "H W 3"]]:
  """Returns the person's alpha in a frame of a film, 0 to 1, and the colors without the room that shines through.

  Args:
    picture: the frame.
    share: rough share of the person in each pixel, 0 to 255, such as the landmark model's.
    plate: the room without the person; None where nothing is known of it.
    known: mask of the plate's known pixels.
  """
  if plate is None or known is None:
    plate, known = np.zeros_like(picture), np.zeros(share.shape, bool)
  matte = _film_matte(picture, share, plate, known)
  return matte.alpha, _colors(picture, matte)


def film_share(picture: UInt8[NdArray, "H W 3"], share: UInt8[NdArray, "H W"]) -> Float[NdArray, "H W"]:
  """Returns the alpha of `film_alpha` alone, where nothing is known of the room; takes less time.

  Args:
    picture: the frame.
    share: rough share of the person in each pixel, 0 to 255.
  """
  return _film_matte(picture, share, np.zeros_like(picture), np.zeros(share.shape, bool)).alpha


def _film_matte(
  picture: UInt8[NdArray, "H W 3"],
  share: UInt8[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"],
  known: Bool[NdArray, "H W"],
) -> "_Matte":
  rough = share.astype(np.float32) / 255
  near, deep = _zones(rough > _ROOM, rough > _PERSON, *_SHARE_ERROR)
  return _matte(picture, rough, near, deep, plate, known)


def is_soft(mask: UInt8[NdArray, "H W"]) -> bool:
  """Whether a mask holds shares, as films without a sidecar have them, and not just 0 and 255."""
  return bool(((mask > 0) & (mask < 255)).any())


def _zones(
  outer: Bool[NdArray, "H W"], inner: Bool[NdArray, "H W"], outside: float, inside: float
) -> tuple[Bool[NdArray, "H W"], Bool[NdArray, "H W"]]:
  """Masks of where the person can be, and of where the person surely is."""
  height = len(outer)
  near = cv2.dilate(outer.astype(np.uint8), _disc(height * outside)).astype(bool)
  return near, cv2.erode(inner.astype(np.uint8), _disc(height * inside), borderValue=1).astype(bool)


class _Matte(NamedTuple):
  """The person's alpha, the color of the wall behind each pixel, and the mask of where the person can be."""

  alpha: Float[NdArray, "H W"]
  wall: Float[NdArray, "H W 3"]
  near: Bool[NdArray, "H W"]


def _colors(picture: UInt8[NdArray, "H W 3"], matte: _Matte) -> Float[NdArray, "H W 3"]:
  """The colors of a picture without the room that shines through."""
  seen = picture.astype(np.float32)
  return np.where(matte.near[..., None], _unmixed(seen, matte.alpha, matte.wall), seen).astype(np.float32)


def _matte(
  picture: UInt8[NdArray, "H W 3"],
  rough: Float[NdArray, "H W"],
  near: Bool[NdArray, "H W"],
  deep: Bool[NdArray, "H W"],
  plate: UInt8[NdArray, "H W 3"],
  known: Bool[NdArray, "H W"],
) -> _Matte:
  # Pixels of the plate next to unknown ones may be mixed with the person.
  known = cv2.erode(known.astype(np.uint8), _disc(2), borderValue=1).astype(bool)
  seen, behind = picture.astype(np.float32), plate.astype(np.float32)
  surely_room = known & ~near
  smooth = cv2.GaussianBlur(seen, (0, 0), _GRAIN)
  plate_error = np.float32(_PLATE_ERROR)
  if surely_room.any():
    change, sigma = smooth - cv2.GaussianBlur(behind, (0, 0), _GRAIN), len(picture) * _LIGHT
    light = _blurred(change * surely_room[..., None], sigma) / np.maximum(_blurred(surely_room, sigma), 1e-3)[..., None]
    behind = behind + light
    plate_error = max(plate_error, _DEVIATIONS[0] * np.sqrt(((change - light)[surely_room] ** 2).mean()))
  gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
  radius = max(1, round(len(picture) / 128))
  alpha = np.where(deep, 1, np.where(near, rough, 0)).astype(np.float32)
  person, room = deep, ~near
  for _ in range(_ROUNDS):
    own = nearby(seen, person)
    around = nearby(np.concatenate([seen, _mean_color(seen**2)[..., None]], axis=-1), room)
    spread = np.sqrt(np.maximum(around[..., 3] - _mean_color(around[..., :3] ** 2), 0))
    wall = np.where(known[..., None], behind, around[..., :3])
    error = np.where(known, plate_error, _GUESS_ERROR + _DEVIATIONS[1] * spread)
    if known.any():  # only a known wall is compared with what a shadow leaves of it
      wall = wall * np.where(known, _shade(seen, wall, error), 1)[..., None]
    far = _distance(seen, wall)
    full = np.minimum(_distance(own, wall), _reached(far, rough))
    measured = np.clip((far - error) / np.maximum(_FULL * full - error, _LEAST), 0, 1)
    trust = full**2 / (full**2 + (_SURE * error) ** 2)
    trust = np.where(measured < rough, trust * (1 - _DOUBT * rough), trust)
    alpha = _inside(trust * measured + (1 - trust) * rough, near, deep)
    alpha = _inside(_guided_filter(gray, _connected(alpha, deep), radius), near, deep)
    person, room = deep | (alpha > _SURELY_PERSON), alpha < _SURELY_ROOM
  alpha = _inside(np.clip((alpha - _MIN_ALPHA) / (1 - _MIN_ALPHA), 0, 1), near, deep)
  return _Matte(alpha, wall, near)


def own_colors(picture: UInt8[NdArray, "H W 3"], alpha: Float[NdArray, "H W"]) -> Float[NdArray, "H W 3"]:
  """Returns the person's colors without the room that shines through, which is unknown; beside the person, continued.

  Args:
    picture: the person in the room.
    alpha: of the person.
  """
  seen = picture.astype(np.float32)
  return _unmixed(seen, alpha, nearby(seen, alpha < _SURELY_ROOM))


def _unmixed(
  seen: Float[NdArray, "H W 3"], alpha: Float[NdArray, "H W"], wall: Float[NdArray, "H W 3"]
) -> Float[NdArray, "H W 3"]:
  """The person's colors in a mixture with the wall's; where alpha is small they are uncertain, so nearby ones count."""
  share = alpha[..., None]
  usual = nearby(seen, alpha > _SURELY_PERSON)
  # Not farther from the wall's color than the person reaches close by: an alpha that is too low would exaggerate it.
  reached = _reached(_distance(seen, wall), alpha)
  reached = np.where(np.isfinite(reached), reached, _distance(usual, wall))[..., None]
  change = (seen - wall) / np.maximum(share, _MIN_DIVISOR)
  length = np.sqrt(_mean_color(change**2))[..., None]
  own = np.clip(wall + change * np.minimum(1, reached / np.maximum(length, 1e-3)), 0, 255)
  certain = np.minimum(share / _CERTAIN, 1)
  return np.where(share < 1, certain * own + (1 - certain) * usual, seen).astype(np.float32)


def _reached(far: Float[NdArray, "H W"], rough: Float[NdArray, "H W"]) -> Float[NdArray, "H W"]:
  """The largest distance from the room's color that the person reaches close by; infinite away from the person.

  Fingers may be more like the wall than the sleeve, whose color is the nearest one that surely is the person's.
  """
  inside = (rough > 0.5).astype(np.float32)
  reached = cv2.dilate(far * inside, _disc(len(far) * _FINGER))
  return np.where(reached > 0, reached, np.float32(np.inf)).astype(np.float32)


def _shade(seen: Float[NdArray, "H W 3"], wall: Float[NdArray, "H W 3"], error: NdArray) -> Float[NdArray, "H W"]:
  """The share of the light that reaches the wall: less than 1 where broad parts of it look shadowed.

  A thin strand of dark hair looks like a narrow shadow, so narrow ones do not count.
  """
  shade = np.clip((seen * wall).sum(axis=-1) / np.maximum((wall**2).sum(axis=-1), 1), *_SHADOW)
  shade = np.where(_distance(seen, shade[..., None] * wall) < error, shade, 1)
  closed = cv2.morphologyEx(shade.astype(np.float32), cv2.MORPH_CLOSE, _disc(len(seen) * _NARROW))
  return np.asarray(closed, np.float32)


def _inside(alpha: NdArray, near: Bool[NdArray, "H W"], deep: Bool[NdArray, "H W"]) -> Float[NdArray, "H W"]:
  return np.where(deep, 1, np.where(near, alpha, 0)).astype(np.float32)


def _distance(one: Float[NdArray, "H W 3"], other: Float[NdArray, "H W 3"]) -> Float[NdArray, "H W"]:
  return np.sqrt(_mean_color((one - other) ** 2))


def _mean_color(values: Float[NdArray, "H W 3"]) -> Float[NdArray, "H W"]:
  """Means over the three colors; several times as fast as NumPy's over so short an axis, and bit for bit the same."""
  red, green, blue = np.moveaxis(values, -1, 0)
  return (red + green + blue) / np.float32(3)


def _blurred(image: NdArray, sigma: float) -> Float[NdArray, "H W *C"]:
  """A wide Gaussian blur, of the reduced picture, which is much faster."""
  height, width = image.shape[:2]
  small = (max(1, round(width * _REDUCED / sigma)), max(1, round(height * _REDUCED / sigma)))
  reduced = cv2.resize(image.astype(np.float32), small, interpolation=cv2.INTER_AREA)
  reduced = cv2.GaussianBlur(reduced, (0, 0), _REDUCED, borderType=cv2.BORDER_REFLECT)
  return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR)


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
  holes = (labels > 0) & ~np.isin(labels, edge) & (counts[labels] < alpha.size / 1000)
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
