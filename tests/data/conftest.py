"""A disc of a person that moves, cheaper than the studio."""

import numpy as np
import pytest

from anchor_jax.data.sidecar import PosedFrame


def make_posed_frames(count, size=32, seed=0, missing=()):
  rng = np.random.default_rng(seed)
  height, width = size if isinstance(size, tuple) else (size, size)
  backdrop = rng.integers(0, 256, (height, width, 3)).astype(np.uint8) // 4
  y, x = np.indices((height, width)) + 0.5
  colour = rng.integers(100, 256, 3)
  for i in range(count):
    centre = np.array([width / 2 + np.sin(i), height / 2])
    body = (x - centre[0]) ** 2 + ((y - centre[1]) / 1.5) ** 2 < (width / 4) ** 2
    head = (x - centre[0]) ** 2 + (y - centre[1] + 4) ** 2 < (width / 7) ** 2
    frame = np.where(body[..., None], colour * (0.5 + x / width / 2)[..., None], backdrop).astype(np.uint8)
    pose = np.where(body[..., None], 120 + i % 50, 0).astype(np.uint8).repeat(3, axis=-1)
    points = centre + np.array([(-3, -6), (3, -6), (0, -4), (-2, -2), (2, -2)])
    landmarks = np.full((5, 2), np.nan) if i in missing else points
    masks = (np.where(mask, 255, 0).astype(np.uint8) for mask in (body, head))
    yield PosedFrame(frame, pose, *masks, landmarks.astype(np.float32))


@pytest.fixture(scope="session")
def posed_frames():
  return make_posed_frames
