"""Replaces the background of generated frames, one frame at a time."""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.backgrounds import Background
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.matte import person_alpha
from anchor_jax.texture.stored import SEEN, Texture


class Backdrop:
  """Replaces the background behind the person; keeps one bit per pixel for each frame in flight."""

  def __init__(self, background: Background, texture: Texture | None, start: int = 0):
    """Takes the new background.

    Args:
      background: of `open_background`.
      texture: of the person, with the background plate.
      start: number of the first frame.

    Raises:
      UserError: the background plate is unknown.
    """
    if texture is None or not texture.plate_coverage.any():
      raise UserError(
        "--background needs the background plate of the person's film: give its prepared folder as --appearance, or"
        " train with config.data.pose_channels"
      )
    self._background, self._number, self._pictures = background, start, None
    self._plate, self._known, self._shown = texture.plate, texture.plate_coverage == SEEN, ShownPlate(texture)
    self._bodies: collections.deque[tuple[int, NdArray, NdArray | None]] = collections.deque()
    self._fps = 0.0

  def watch(self, motion: Motion) -> Motion:
    """Returns the motion, recording the body's silhouette as frames are taken; it can be animated only once."""
    self._fps = motion.fps

    def frames(first: int) -> Iterator[MotionFrame]:
      for number, frame in enumerate(motion.frames(first), start=first):
        body = frame.pose.max(axis=-1) > 0 if frame.surface is None else frame.surface[..., 0] > 0
        self._bodies.append((number, np.packbits(body), frame.camera))
        yield frame

    return dataclasses.replace(motion, frames=frames)

  def behind(self, picture: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W C"]:
    """Returns the next frame in front of the background, or as RGBA (straight alpha) if transparent."""
    number, packed, camera = self._bodies.popleft()
    while number < self._number:  # a resumed stream first takes frames that are already written
      number, packed, camera = self._bodies.popleft()
    height, width = picture.shape[:2]
    size, known = FrameSize(width, height), FrameSize(*self._plate.shape[1::-1])
    if known != size:
      raise UserError(
        f"the background plate has {known} pixels and the frames have {size}: prepare the person's film again with"
        f" --size={size}"
      )
    body = np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)
    plate, known = self._plate, self._known
    if camera is not None:
      shown = self._shown.through(camera)
      plate, known = shown[..., :3], shown[..., 3] == SEEN
    share, own = person_alpha(np.asarray(picture), body, plate, known)
    if self._background.transparent:
      blended = np.concatenate([own, 255 * share[..., None]], axis=-1)
    else:
      if self._pictures is None:
        self._pictures = self._background.frames(size, self._fps, number)
      blended = share[..., None] * own + (1 - share[..., None]) * next(self._pictures)
    self._number = number + 1
    return np.rint(blended).astype(np.uint8)
