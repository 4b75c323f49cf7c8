"""The motion in a file of SMPL-X parameters, posed with a model file that the user supplies."""

import math
import os

from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.motion.film import track_motion
from anchor_jax.motion.frames import Motion
from anchor_jax.smplx.model import read_model
from anchor_jax.smplx.parameters import read_parameters
from anchor_jax.smplx.tracks import posed_track

_MARGIN = 1.0  # seconds beyond the last frame wanted, since smoothing looks ahead


def read_smplx_motion(
  path: str | os.PathLike,
  model: str | os.PathLike,
  *,
  size: int,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
) -> Motion:
  """Returns the motion of SMPL-X parameters, rendered as that of a video without a sidecar is.

  Args:
    path: a file of SHOW or TalkSHOW, see `read_parameters`.
    model: the body model, SMPLX_NEUTRAL.npz or another.
    size: height and width of the pose renders, in pixels.
    frames: only the first so many frames (at `fps`); default all.
    fps: frame rate of the motion; default the file's, 30.
    measures, mapped: see `read_video_motion`.

  Raises:
    UserError: a file is missing, damaged, or does not fit the other.
  """
  motion = read_parameters(path)
  needed = None if frames is None else math.ceil(frames * motion.fps / (fps or motion.fps) + _MARGIN * motion.fps)
  track = posed_track(read_model(model), motion, needed)
  return track_motion(track, size, measures, mapped).at_fps(fps).first(frames)
