"""The motions that a page offers: the user's or the studio's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.motions import OpenMotion, open_motion
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.studio import make_identity, make_motion, render_clip
from anchor_jax.studio.performances import DRIVER, MOTIONS
from anchor_jax.web.folder import NamedMotion

FPS = 25


def open_motions(paths: Sequence[Path]) -> list[OpenMotion]:
  """Opens motions, before a person is loaded; raises UserError if one can't be read."""
  return [open_motion(path) for path in paths]


def named_motions(
  opened: Sequence[OpenMotion], size: int | FrameSize, seconds: float, measures: BodyMeasures | None = None
) -> list[NamedMotion]:
  """Returns motions labeled with the names of their files, at no more than 25 frames per second.

  Args:
    opened: of `open_motions`.
    size: of the person's pictures.
    seconds: maximum length of each.
    measures: the person's body measures, onto which other people's motions are mapped.

  Raises:
    UserError: one can't be read.
  """
  named = []
  for source in opened:
    motion = source.read(size, measures)
    fps = min(motion.fps, FPS)
    label = source.path.stem or source.path.resolve().name
    named.append(NamedMotion(label, motion.at_fps(fps).first(max(1, round(seconds * fps)))))
  return named


def studio_motions(size: int | FrameSize, seconds: float, names: Sequence[str] = tuple(MOTIONS)) -> list[NamedMotion]:
  """Returns motions of the studio; poses are rendered by several processes as they are read."""
  times = [number / FPS for number in range(max(1, round(seconds * FPS)))]

  def frames_of(seed: int):
    def frames(first: int) -> Iterator[MotionFrame]:
      for frame in render_clip(make_identity(DRIVER), make_motion(seed), times[first:], size):
        yield MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks, frame.surface)

    return frames

  chosen = [MOTIONS[name] for name in names]
  return [NamedMotion(one.label, Motion(FPS, FrameSize.of(size), len(times), frames_of(one.seed))) for one in chosen]
