"""People for tests, cheaper than the studio's: a moving disc, and the points of a standing body."""

import cv2
import numpy as np

from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.landmarks.tracks import Track


def make_posed_frames(count, size=32, seed=0, missing=()):
  rng = np.random.default_rng(seed)
  height, width = size if isinstance(size, tuple) else (size, size)
  backdrop = rng.integers(0, 256, (height, width, 3)).astype(np.uint8) // 4
  y, x = np.indices((height, width)) + 0.5
  color = rng.integers(100, 256, 3)
  for i in range(count):
    center = np.array([width / 2 + np.sin(i), height / 2])
    body = (x - center[0]) ** 2 + ((y - center[1]) / 1.5) ** 2 < (width / 4) ** 2
    head = (x - center[0]) ** 2 + (y - center[1] + 4) ** 2 < (width / 7) ** 2
    frame = np.where(body[..., None], color * (0.5 + x / width / 2)[..., None], backdrop).astype(np.uint8)
    pose = np.where(body[..., None], 120 + i % 50, 0).astype(np.uint8).repeat(3, axis=-1)
    points = center + np.array([(-3, -6), (3, -6), (0, -4), (-2, -2), (2, -2)])
    landmarks = np.full((5, 2), np.nan) if i in missing else points
    person, face = (np.where(mask, 255, 0).astype(np.uint8) for mask in (body, head))
    yield PosedFrame(frame, pose, person, face, landmarks.astype(np.float32))


def make_measures():
  """Body measures that are exact in JSON."""
  return BodyMeasures((0.5, 0.4), 0.3, 0.2, 0.5, 0.2, 0.08, 0.25, None, (0.125, 0.15))


def make_track(frames=6, size=(160, 120), **changes):
  """A person who stands in the middle of a video, one hand in front of the chest, with a flat, round face."""
  width, height = size
  unit = height / 3.2  # between the shoulders
  body = np.zeros((33, 3), np.float32)
  body[:, :2] = width / 2, height * 0.55
  places = {0: (0, -0.55), 11: (0.5, 0), 12: (-0.5, 0), 13: (0.62, 0.72), 14: (-0.62, 0.72), 15: (0.6, 1.4)}
  places |= {16: (-0.1, 0.5), 17: (0.62, 1.6), 18: (0.1, 0.4), 19: (0.55, 1.6), 20: (0.1, 0.35), 23: (0.3, 1.5)}
  places |= {24: (-0.3, 1.5), 7: (0.2, -0.5), 8: (-0.2, -0.5)}
  for number, (x, y) in places.items():
    body[number, :2] = width / 2 + x * unit, height * 0.4 + y * unit
  face = np.zeros((478, 3), np.float32)
  angle = np.arange(478) * 2.4
  radius = 0.2 * unit * np.sqrt(np.arange(478) / 478)
  face[:, 0], face[:, 1] = body[0, 0] + radius * np.cos(angle), body[0, 1] + 1.2 * radius * np.sin(angle)
  for number, (x, y) in {10: (0, -0.25), 152: (0, 0.25), 234: (-0.2, 0), 454: (0.2, 0)}.items():
    face[number, :2] = body[0, :2] + np.array([x, y]) * unit
  for number, (x, y) in {33: (-0.12, -0.05), 133: (-0.04, -0.05), 362: (0.04, -0.05), 263: (0.12, -0.05)}.items():
    face[number, :2] = body[0, :2] + np.array([x, y]) * unit
  face[10, 2] = 0.15 * unit
  hands = np.zeros((2, 21, 3), np.float32)
  fan = np.arange(21) // 4.2
  for side, wrist in enumerate((15, 16)):
    reach = 0.27 * unit * (1 + (np.arange(21) - 1) % 4 * 0.35)
    hands[side, :, 0] = body[wrist, 0] + reach * (0.2 * fan - 0.4)
    hands[side, :, 1] = body[wrist, 1] - reach * (1 if side else -1)
    hands[side, 0] = [*body[wrist, :2], 0]
  triangles = np.array([(10, 234, 454), (152, 234, 454)], np.int32)
  mask = np.zeros((height, width), np.uint8)
  mask[height // 4 :, width // 3 : -width // 3] = 200
  repeat = lambda points: np.repeat(points[None], frames, axis=0)
  fields = {"body": repeat(body), "face": repeat(face), "hands": repeat(hands)} | changes
  png = cv2.imencode(".png", mask)[1].tobytes()
  seen = np.isfinite(fields["face"][:, 0, 0])
  return Track(width, height, 25.0, **fields, triangles=triangles, masks=(png,) * frames, has_face=seen)
