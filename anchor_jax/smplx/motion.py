"""The motion of SMPL-X parameters, posed with a model file that the user supplies."""

import math
import os

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.motion.film import track_motion
from anchor_jax.motion.frames import Motion
from anchor_jax.smplx.model import read_model
from anchor_jax.smplx.parameters import SmplxParameters
from anchor_jax.smplx.tracks import posed_track

_MARGIN = 1.0  # seconds that are posed beyond the last frame of the motion, since smoothing looks ahead


def smplx_motion(
  parameters: SmplxParameters,
  model: str | os.PathLike,
  *,
  size: int | FrameSize,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
) -> Motion:
  """Returns the motion of SMPL-X parameters, rendered like that of a video without a sidecar.

  Args:
    parameters: from `read_parameters`.
    model: the body model, SMPLX_NEUTRAL.npz or another.
    size: width and height of the pose renders in pixels, or the side of squares.
    frames: number of frames from the start (at `fps`); default all.
    fps: frame rate of the motion; default the file's, 30.
    measures, mapped: see `film_motion`.

  Raises:
    UserError: the model file is missing or damaged, or the parameters do not fit the model.
  """
  native = parameters.fps
  needed = None if frames is None else math.ceil(frames * native / (fps or native) + _MARGIN * native)
  track = posed_track(read_model(model), parameters, needed)
  return track_motion(track, size, measures, mapped).at_fps(fps).first(frames)
