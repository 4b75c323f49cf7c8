"""Another background behind a person, frame by frame, as the frames of a generated video come."""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.backgrounds import TRANSPARENT, backgrounds
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.texture.matte import person_alpha
from anchor_jax.texture.stored import Texture


class Backdrop:
  """Replaces the room of frames; what is remembered of each frame, until it comes back, is a bit a pixel."""

  def __init__(self, name: str, texture: Texture | None, start: int = 0):
    """Takes what is to be behind her.

    Args:
      name: "transparent", or what `backgrounds` takes.
      texture: of the person, whose room is known.
      start: number of the first frame to come.

    Raises:
      UserError: her room is not known.
    """
    if texture is None or not texture.plate_coverage.any():
      raise UserError(
        "--background needs to know the room behind her: give the prepared folder of her film as --appearance, or train"
        " her with config.data.appearance"
      )
    self._name, self._number, self._pictures = name, start, None
    self._plate, self._known = texture.plate, texture.plate_coverage > 0
    self._bodies: collections.deque[tuple[int, NdArray]] = collections.deque()
    self._fps = 0.0

  def watch(self, motion: Motion) -> Motion:
    """Returns the motion, of which it is noted where the body is when its frames are taken; to be animated once."""
    self._fps = motion.fps

    def frames(first: int) -> Iterator[MotionFrame]:
      for number, frame in enumerate(motion.frames(first), start=first):
        body = frame.pose.max(axis=-1) > 0 if frame.surface is None else frame.surface[..., 0] > 0
        self._bodies.append((number, np.packbits(body)))
        yield frame

    return dataclasses.replace(motion, frames=frames)

  def behind(self, picture: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W C"]:
    """Returns the next frame before the background, or RGBA where it is transparent (not multiplied)."""
    number, packed = self._bodies.popleft()
    while number < self._number:  # a stream that goes on begins with frames that are not shown again
      number, packed = self._bodies.popleft()
    height, width = picture.shape[:2]
    if self._plate.shape[:2] != (height, width):
      raise UserError(
        f"the room is known at {self._plate.shape[0]} pixels and the frames have {height}: prepare her film again with"
        f" --size={height}"
      )
    body = np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)
    share, own = person_alpha(np.asarray(picture), body, self._plate, self._known)
    if self._name == TRANSPARENT:
      made = np.concatenate([own, 255 * share[..., None]], axis=-1)
    else:
      if self._pictures is None:
        self._pictures = backgrounds(self._name, height, self._fps, number)
      made = share[..., None] * own + (1 - share[..., None]) * next(self._pictures)
    self._number = number + 1
    return np.rint(made).astype(np.uint8)
