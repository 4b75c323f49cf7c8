"""Video as fast as it plays: poses come at their rate, frames are written as soon as they are there, and it is timed.

Windows are short and do not overlap, so that no frame waits for poses far ahead; else it is the sampler and the stream
of every other video (`animate.py`). A frame waits for the poses of its window, then for the network. Before a camera
the next pose is found while frames are made, and always in the newest picture, so that nothing queues up.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from anchor_jax.body.face_crop import face_template
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.person import Person, Reference
from anchor_jax.inference.prefetch import in_thread
from anchor_jax.motion.following import LivePose, pose_frame
from anchor_jax.motion.frames import Motion, MotionFrame, live_motion

_WARM_UP = 3  # windows before the clock starts: the first compiles


@dataclasses.dataclass(frozen=True)
class Timing:
  """What `play` or `follow` measured.

  Attributes:
    fps: frames per second at which poses came, before a camera its pictures.
    start_up: seconds until the first pose was taken, programs being read or compiled; before a camera until the first
      frame was written.
    written: of each frame, seconds from when the first pose was awaited until it was written.
    latencies: of each frame, seconds from when its pose, or its picture, came until it was written.
    further: figures of `follow` alone, by name: see there.
  """

  fps: float
  start_up: float
  written: list[float]
  latencies: list[float]
  further: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, float]:
    """The figures of `generate --live --json`; latency_95 is exceeded by one frame in twenty.

    frames_per_second is the rate from the first frame to the last, of one frame 0; latency_last tells whether frames
    are written as fast as poses come, or fall behind.
    """
    ordered, passed = sorted(self.latencies), self.written[-1] - self.written[0]
    return {
      "frames": len(ordered),
      "poses_per_second": self.fps,
      "frames_per_second": (len(ordered) - 1) / passed if passed else 0.0,
      "start_up_seconds": self.start_up,
      "latency_median": ordered[len(ordered) // 2],
      "latency_95": ordered[min(len(ordered) - 1, len(ordered) * 19 // 20)],
      "latency_largest": ordered[-1],
      "latency_last": self.latencies[-1],
      **self.further,
    }


def play(
  person: Person,
  motion: Motion,
  write: Callable[[UInt8[NdArray, "H W 3"]], object],
  appearance: Reference | None = None,
  seed: int = 0,
  rate: float | None = None,
  clock: Callable[[], float] = time.monotonic,
  sleep: Callable[[float], None] = time.sleep,
) -> Timing:
  """Animates a person while the motion comes, and times it; her head, where there is one, waits for no other faces.

  Args:
    person: with sampling settings for it, see `generate_flags.SHORT_WINDOWS`.
    motion: what the person does; it is read as it comes, so that its length need not be known.
    write: takes each frame.
    appearance, seed: as of `Person.animate`.
    rate: poses per second; by default the motion's. Infinity takes them as fast as they are used.
    clock, sleep: of this machine.

  Raises:
    UserError: as `Person.animate`.
  """
  began, rate, person = clock(), motion.fps if rate is None else rate, prompt(person)
  for _ in person.animate(motion.first(_WARM_UP * person.body.sample.window), appearance, seed):
    pass
  start, taken, written = clock(), [], []
  frames = _paced(motion.frames(0), rate, start, taken, clock, sleep)
  for frame in person.animate(live_motion(motion.fps, motion.size, frames), appearance, seed):
    write(frame)
    written.append(clock())
  latencies = [end - pose for end, pose in zip(written, taken, strict=False)]
  return Timing(rate, start - began, [end - start for end in written], latencies)


def _paced(
  frames: Iterator[MotionFrame], rate: float, start: float, taken: list[float], clock: Any, sleep: Any
) -> Iterator[MotionFrame]:
  """The frames, each when it is due, which is noted in `taken`; late ones at once, but as of when they were due."""
  for number, frame in zip(itertools.count(), frames):
    due = start + (number + 1) / rate if rate < float("inf") else clock()
    while (wait := due - clock()) > 0:
      sleep(wait)
    taken.append(due)
    yield frame


def prompt(person: Person) -> Person:
  """The person whose head repaints the faces of one window of her body at a time, as soon as that is there."""
  return person if person.head is None else person.with_sampling("head", windows_per_batch=person.body.sample.window)


def warm_up(person: Person, appearance: Reference | None = None, seed: int = 0) -> None:
  """Compiles or reads the programs that `follow` runs; arguments as there."""
  empty = np.zeros((person.size, person.size, 3), np.uint8)
  blank = MotionFrame(empty, empty[..., :1], face_template(person.size).astype(np.float32), empty)
  frames = iter([blank] * (_WARM_UP * person.body.sample.window))
  for _ in prompt(person).animate(live_motion(1.0, person.size, frames), appearance, seed):
    pass


def follow(
  person: Person,
  seen: Iterator[LivePose],
  fps: float,
  write: Callable[[UInt8[NdArray, "H W 3"], float], object],
  appearance: Reference | None = None,
  seed: int = 0,
  frames: int | None = None,
  clock: Callable[[], float] = time.monotonic,
) -> Timing:
  """Animates a person as somebody moves before a camera, and times it.

  While frames are made the next pose is drawn in another thread, and in a third one the landmarks after that are found,
  none further ahead. Beside what `play` tells, the figures are the share of pictures that were dropped between the
  first and the last frame, and the medians in seconds of finding landmarks and of drawing a pose.

  Args:
    person: with sampling settings for it: windows of one frame.
    seen: from `following.track_live`.
    fps: pictures a second.
    write: takes each frame, and the time of its picture in seconds of the clock.
    appearance, seed: as of `Person.animate`.
    frames: end after so many frames; default when there are no more pictures.
    clock: of this machine, also of the pictures.

  Raises:
    UserError: what `seen` raises, or as `Person.animate`, also where there was no pose at all.
  """
  start, taken, written = clock(), [], []

  def drawn() -> Iterator[tuple[tuple[float, ...], MotionFrame]]:
    for item in itertools.islice(in_thread(seen), frames):
      begun = clock()
      frame = pose_frame(item.driver, item.track)
      yield (item.number, item.time, item.seconds, clock() - begun), frame

  def moves() -> Iterator[MotionFrame]:
    for facts, frame in in_thread(drawn()):
      taken.append(facts)
      yield frame

  for frame in prompt(person).animate(live_motion(fps, person.size, moves()), appearance, seed):
    write(frame, taken[len(written)][1])
    written.append(clock())
  numbers, times, finding, drawing = zip(*taken[: len(written)])
  latencies = [end - came for end, came in zip(written, times, strict=True)]
  further = {
    "dropped_share": 1 - len(numbers) / (numbers[-1] - numbers[0] + 1),
    "landmarks_median": sorted(finding)[len(finding) // 2],
    "drawing_median": sorted(drawing)[len(drawing) // 2],
  }
  return Timing(fps, written[0] - start, [end - start for end in written], latencies, further)
