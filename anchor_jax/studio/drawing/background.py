"""The background of a studio frame: a wall with a light gradient and some furniture, out of focus."""

from functools import lru_cache

import cv2
import numpy as np

from anchor_jax.body.solids import Real
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.studio.identity import Identity

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@lru_cache(maxsize=8)
def paint_background(identity: Identity, size: FrameSize) -> Float[NdArray, "H W 3"]:
  """The background of an identity's frames, RGB, float32, 0..255; cached, so do not modify it."""
  generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([identity.seed, 0x726F6F6D])))
  n = 256  # always drawn at this size, then resized
  wall, second = np.asarray(identity.wall, np.float32), np.asarray(identity.wall_two, np.float32)
  y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
  light = 1.02 - 0.30 * np.hypot(x - 0.5 - 0.22 * identity.key_side, (y - 0.30) * 0.8) - 0.10 * y
  picture = np.ascontiguousarray(np.broadcast_to(wall, (n, n, 3)).astype(np.float32))
  side = 1 if generator.random() < 0.5 else -1

  def rectangle(x0: Real, y0: Real, x1: Real, y1: Real, color) -> None:
    points = [round(float(v) * n * 2**_SHIFT) for v in (min(x0, x1), y0, max(x0, x1), y1)]
    cv2.rectangle(picture, tuple(points[:2]), tuple(points[2:]), tuple(float(c) for c in color), -1, cv2.LINE_8, _SHIFT)

  def ellipse(x0: Real, y0: Real, a: Real, b: Real, angle: Real, color) -> None:
    cv2.ellipse(
      picture,
      ((float(x0 * n), float(y0 * n)), (float(2 * a * n), float(2 * b * n)), float(angle)),
      tuple(float(c) for c in color),
      -1,
    )

  def mirror(u: Real) -> Real:
    return 0.5 + side * (u - 0.5)

  if identity.room == "window":
    rectangle(mirror(0.70), 0.04, mirror(1.02), 0.56, wall * 0.5 + 0.46)
    rectangle(mirror(0.72), 0.06, mirror(1.02), 0.54, (0.78, 0.90, 0.99))
    ellipse(mirror(0.92), 0.55, 0.20, 0.14, 0, (0.55, 0.72, 0.52))
    ellipse(mirror(0.75), 0.56, 0.10, 0.09, 0, (0.45, 0.64, 0.45))
    rectangle(mirror(0.70), 0.54, mirror(1.02), 0.575, wall * 0.5 + 0.46)
    rectangle(mirror(0.855), 0.06, mirror(0.87), 0.54, wall * 0.5 + 0.46)
    rectangle(mirror(0.70), 0.30, mirror(1.02), 0.315, wall * 0.5 + 0.46)
  elif identity.room == "picture":
    rectangle(mirror(0.72), 0.09, mirror(0.96), 0.40, (0.20, 0.16, 0.13))
    rectangle(mirror(0.735), 0.105, mirror(0.945), 0.385, (0.94, 0.92, 0.88))
    rectangle(mirror(0.755), 0.13, mirror(0.925), 0.36, second * 0.7 + 0.25)
    for _ in range(4):
      u, v, r = generator.uniform((0.79, 0.18, 0.02), (0.89, 0.31, 0.05))
      ellipse(mirror(u), v, r, r * 0.9, 0, generator.uniform(0.2, 0.95, 3))
    rectangle(mirror(0.04), 0.16, mirror(0.16), 0.33, (0.93, 0.92, 0.90))
    rectangle(mirror(0.055), 0.175, mirror(0.145), 0.315, second * 0.5 + 0.3)
  elif identity.room == "shelf":
    for v in (0.26, 0.52):
      u = 0.69
      while u < 1.0:
        wide, tall = generator.uniform((0.018, 0.09), (0.040, 0.16))
        if generator.random() < 0.85:
          rectangle(mirror(u), v - tall, mirror(u + wide), v, generator.uniform(0.15, 0.85, 3) * 0.8)
        u += wide + 0.004
      rectangle(mirror(0.66), v, mirror(1.02), v + 0.024, (0.42, 0.30, 0.21))
    ellipse(mirror(0.12), 0.20, 0.055, 0.055, 0, (0.97, 0.92, 0.80))
  elif identity.room == "plant":
    rectangle(mirror(0.0), 0.68, mirror(0.24), 0.70, (0.45, 0.34, 0.26))
    rectangle(mirror(0.06), 0.56, mirror(0.17), 0.68, second * 0.6 + 0.3)
    for k in range(16):
      angle = -90 + (k - 7.5) * 15 + generator.uniform(-5, 5)
      reach = generator.uniform(0.08, 0.20)
      u, v = 0.115 + reach * np.cos(np.radians(angle)) * 0.8, 0.55 + reach * np.sin(np.radians(angle))
      green = np.array([0.20, 0.46, 0.24]) * generator.uniform(0.7, 1.35)
      ellipse(mirror(u), v, 0.078, 0.021, angle if side > 0 else 180 - angle, green)
  elif identity.room == "studio":
    picture *= 0.55
    for k in range(5):
      u = 0.04 + 0.23 * k
      rectangle(u, 0.0, u + 0.012, 1.0, second * 0.55 + 0.25)
    rectangle(0, 0.44, 1, 0.455, second * 0.6 + 0.35)
    for _ in range(14):
      u, v, r = generator.uniform((0, 0.02, 0.01), (1, 0.4, 0.028))
      ellipse(u, v, r, r, 0, np.clip(second * 0.8 + generator.uniform(0.1, 0.3), 0, 1))
  else:
    picture += (second * 0.35 + wall * 0.5 - wall)[None, None] * np.clip((y - 0.60) * 60, 0, 1)[..., None] * 0.8
    picture += 0.10 * np.clip(1 - np.abs(y - 0.60) * 70, 0, 1)[..., None]
  picture = cv2.GaussianBlur(picture, (0, 0), n * 0.011)
  picture *= light[..., None]
  picture *= np.array([1 + 0.03 * identity.warmth, 1.0, 1 - 0.03 * identity.warmth], np.float32)
  longer = max(size)
  kind = cv2.INTER_AREA if longer < n else cv2.INTER_CUBIC
  picture = cv2.resize(picture, (longer, longer), interpolation=kind)
  top, left = (longer - size.height) // 2, (longer - size.width) // 2  # the middle of the square
  return np.clip(picture[top : top + size.height, left : left + size.width] * 255, 0, 255).astype(np.float32)
