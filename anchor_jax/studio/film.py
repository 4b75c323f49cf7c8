"""Studio people as video files with sidecars."""

import os

from anchor_jax.motion.sidecar import write_posed_video
from anchor_jax.studio.frames import make_identity, make_motion, render_clip


def write_studio_video(
  path: str | os.PathLike,
  *,
  identity_seed: int,
  motion_seed: int,
  seconds: float | int,
  size: int,
  fps: float | int = 25.0,
  start: float | int = 0.0,
  workers: int | None = None,
  progress: str | None = "studio video",
) -> int:
  """Renders a studio person in motion into a video with its sidecar; returns the number of frames.

  Args:
    path: the .mp4 file.
    identity_seed, motion_seed: name the person and the motion; independent of each other.
    seconds, fps: length and frame rate; round(seconds * fps) frames, at least one.
    size: height and width in pixels.
    start: the time within the motion at which the video begins, in seconds.
    workers: rendering processes, as for `frames.render_clip`.
    progress: what the progress bar says; None for no bar.
  """
  times = [start + i / fps for i in range(max(1, round(seconds * fps)))]
  identity, motion = make_identity(identity_seed), make_motion(motion_seed)
  frames = render_clip(identity, motion, times, size, workers=workers)
  tags = {"comment": f"synthetic: studio person {identity_seed}, motion {motion_seed}"}
  return write_posed_video(path, frames, fps, total=len(times), progress=progress, metadata=tags)
