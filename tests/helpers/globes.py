"""Film of a turning globe before a wall: its surface map and texture are known in closed form."""

import numpy as np

from anchor_jax.body import charts as surface
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.texture.gather import FilmFrame

CHARTS = (("none", False), ("globe", True), ("face", False))
STAND = (200, 30, 30)


def pattern(u, v):
  """The texture: u around (0 to 1, periodic), v from pole to pole; RGB 0 to 255."""
  around, down = np.broadcast_arrays(2 * np.pi * u, np.pi * v)
  waves = (np.sin(3 * around) * np.sin(down), np.cos(2 * around) * np.sin(down), np.cos(4 * down))
  return np.stack([130 + 90 * wave for wave in waves], axis=-1)


def wall(size):
  y, x = np.mgrid[:size, :size] / size
  return np.stack([40 + 100 * x, 60 + 100 * y, 90 + 0 * x], axis=-1).astype(np.uint8)


def globe(turn, size=48, shift=0.0):
  """One frame; `turn` and `shift` of the globe's center in turns and pixels."""
  y, x = np.mgrid[:size, :size] + 0.5
  radius = size * 0.32
  x, y = (x - size / 2 - shift) / radius, (y - size * 0.42) / radius
  here = x**2 + y**2 < 1
  z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
  u = (np.arctan2(x, z) / (2 * np.pi) + turn) % 1
  v = np.arccos(np.clip(-y, -1, 1)) / np.pi
  stand = ~here & (y > 0) & (abs(x) < 0.2)
  level = lambda values: np.minimum(np.floor(256 * values), 255).astype(np.uint8)
  surface = np.zeros((size, size, 3), np.uint8)
  surface[here] = np.stack([np.ones_like(u), level(u), level(v)], axis=-1)[here].astype(np.uint8)
  surface[stand] = np.stack([np.full_like(u, 2), level(x / 0.4 + 0.5), level(y / 4)], axis=-1)[stand].astype(np.uint8)
  frame = wall(size)
  frame[here] = pattern(u, v)[here]
  frame[stand] = STAND
  mask = np.where(here | stand, 255, 0).astype(np.uint8)
  return FilmFrame(frame, surface, mask, np.full((5, 2), size / 2, np.float32))


def globe_film(count=40, size=48):
  """A globe that turns once and moves a few pixels to and fro."""
  return [globe(i / count, size, 4 * np.sin(i)) for i in range(count)]


def film(count=20, size=32):
  """A globe that turns; its charts are those of a cranium, which goes around, and of a chest."""
  for i in range(count):
    frame = globe(i / count, size, np.sin(i))
    chart = np.array([0, surface.chart("cranium"), surface.chart("chest")], np.uint8)[frame.surface[..., 0]]
    where = np.dstack([chart, frame.surface[..., 1:]])
    face = np.where(chart == surface.chart("cranium"), 255, 0).astype(np.uint8)
    pose = np.where(frame.person_mask[..., None] > 0, where, 0)
    points = np.array([(14, 11), (18, 11), (16, 13), (14, 15), (18, 15)], np.float32)
    yield PosedFrame(frame.frame, pose, frame.person_mask, face, points, where)
