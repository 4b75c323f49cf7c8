"""Films with flaws, and the expected division into stretches."""

import functools

import cv2
import numpy as np
from people import make_posed_frames

from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.studio import make_identity, make_motion, render

FPS = 10


@functools.cache
def studio_shot(seed, count, size=64):
  """Frames of a studio person."""
  identity, motion = make_identity(seed), make_motion(seed)
  frames = [render(identity, motion, number / FPS, size) for number in range(count)]
  return [PosedFrame(f.frame, f.pose, f.person_mask, f.face_mask, f.landmarks, f.surface) for f in frames]


def disc_shot(seed, count, size=64):
  """Frames of a disc in front of colored squares, which are cheap to make."""
  room = np.random.default_rng(seed).integers(0, 160, (4, 4, 3), np.uint8).repeat(size // 4, 0).repeat(size // 4, 1)
  frames = make_posed_frames(count, size, seed)
  return [item._replace(frame=np.where(item.person_mask[..., None], item.frame, room + item.frame)) for item in frames]


def dark(item):
  return item._replace(frame=item.frame // 10)


def blurred(item):
  return item._replace(frame=cv2.GaussianBlur(item.frame, (0, 0), 3))


def walked(item, room, share):
  """The frame with the person moved to the right by a share of the picture's width; at 1 the person is gone."""
  height, width = item.person_mask.shape
  by = np.array([[1, 0, share * width], [0, 1, 0]], np.float32)
  moved = lambda image: cv2.warpAffine(image, by, (width, height), flags=cv2.INTER_NEAREST)
  mask = moved(item.person_mask)
  frame = np.where(mask[..., None] > 127, moved(item.frame), room)
  landmarks = item.landmarks + np.float32([share * width, 0])
  points = np.where((landmarks < width).all(), landmarks, np.float32("nan"))
  surface = None if item.surface is None else moved(item.surface)
  return PosedFrame(frame, moved(item.pose), mask, moved(item.face_mask), points, surface)


def empty_room(item):
  return cv2.inpaint(item.frame, cv2.dilate(item.person_mask, np.ones((5, 5))), 3, cv2.INPAINT_TELEA)


def messy_film(shot):
  """Three shots with dark, blurred and empty stretches, and the expected stretches as (frames, shot, reason)."""
  ann, bob, cat = shot(1, 30), shot(2, 30), shot(5, 3)
  frames = [*ann[:8], *map(dark, ann[8:12]), *ann[12:20], *map(blurred, ann[20:24]), *ann[24:]]
  room = empty_room(bob[10])
  leaving = [walked(item, room, share) for item, share in zip(bob[10:], (0.2, 0.4, 0.6, *[1] * 6, 0.6, 0.4, 0.2))]
  frames += [*bob[:10], *leaving, *bob[22:], *cat]
  truth = [(8, 0, ""), (4, 0, "dark"), (8, 0, ""), (4, 0, "blurred"), (6, 0, "")]
  truth += [(13, 1, ""), (6, 1, "no person"), (11, 1, ""), (3, 2, "short")]
  return frames, truth
