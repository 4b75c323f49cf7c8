"""The motions that a page offers: the user's or the studio's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from anchor_jax.inference.motions import check_motion, read_motion
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.studio import make_identity, make_motion, render_clip
from anchor_jax.studio.performances import DRIVER, MOTIONS
from anchor_jax.web.folder import NamedMotion

FPS = 25


def check_motions(paths: Sequence[Path]) -> None:
  """Checks, before a person is read, that there are such motions; raises UserError for one that there is not."""
  for path in paths:
    check_motion(path)


def own_motions(
  paths: Sequence[Path], size: int, seconds: float, measures: BodyMeasures | None = None
) -> list[NamedMotion]:
  """Returns the motions of files or prepared folders, labeled with their names, at no more than 25 frames per second.

  Args:
    paths: as `read_motion` takes them.
    size: of the person's pictures.
    seconds: maximum length of each.
    measures: the person's body measures, onto which other people's motions are mapped.

  Raises:
    UserError: one can't be read.
  """
  named = []
  for path in paths:
    motion = read_motion(path, size=size, measures=measures)
    fps = min(motion.fps, FPS)
    named.append(NamedMotion(path.stem or path.resolve().name, motion.at_fps(fps).first(max(1, round(seconds * fps)))))
  return named


def studio_motions(size: int, seconds: float, names: Sequence[str] = tuple(MOTIONS)) -> list[NamedMotion]:
  """Returns motions of the studio; poses are rendered by several processes as they are read."""
  times = [number / FPS for number in range(max(1, round(seconds * FPS)))]

  def frames_of(seed: int):
    def frames(first: int) -> Iterator[MotionFrame]:
      for frame in render_clip(make_identity(DRIVER), make_motion(seed), times[first:], size):
        yield MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks, frame.surface)

    return frames

  chosen = [MOTIONS[name] for name in names]
  return [NamedMotion(one.label, Motion(FPS, size, len(times), frames_of(one.seed))) for one in chosen]
