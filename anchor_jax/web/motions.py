"""The motions that a page offers: the user's own, or those of the studio."""

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
  """Returns motions of files or prepared folders, called by their names, with at most 25 frames a second.

  Args:
    paths: as `read_motion` takes them.
    size: of the person's pictures.
    seconds: of each, at most.
    measures: of the person, to fit others' motions to.

  Raises:
    UserError: one can't be read.
  """
  made = []
  for path in paths:
    motion = read_motion(path, size=size, measures=measures)
    fps = min(motion.fps, FPS)
    made.append(NamedMotion(path.stem or path.resolve().name, motion.at_fps(fps).first(max(1, round(seconds * fps)))))
  return made


def studio_motions(size: int, seconds: float, names: Sequence[str] = tuple(MOTIONS)) -> list[NamedMotion]:
  """Returns motions of the studio; their poses are rendered when they are read, in several processes."""
  times = [number / FPS for number in range(max(1, round(seconds * FPS)))]

  def frames_of(seed: int):
    def frames(first: int) -> Iterator[MotionFrame]:
      for made in render_clip(make_identity(DRIVER), make_motion(seed), times[first:], size):
        yield MotionFrame(made.pose, made.face_mask[..., None], made.landmarks, made.surface)

    return frames

  chosen = [MOTIONS[name] for name in names]
  return [NamedMotion(one.label, Motion(FPS, size, len(times), frames_of(one.seed))) for one in chosen]
