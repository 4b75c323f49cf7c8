"""Real-time animation: poses arrive at their frame rate, frames are written as soon as they are done, with timing.

Windows are short and do not overlap, so that no frame waits for poses far ahead; otherwise this is the sampler and
stream of any other video (`animate.py`). A frame waits for the poses of its window, then for the network. With a
camera, the next pose is found in the newest picture while frames are computed, so nothing queues up.
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

_WARM_UP = 3  # windows before timing starts; the first compiles


@dataclasses.dataclass(frozen=True)
class Timing:
  """Measurements of `play` or `follow`.

  Attributes:
    fps: rate of the poses, or of the camera's pictures.
    start_up: seconds until the first pose was taken (loading or compiling programs); with a camera, until the first
      frame was written.
    written: for each frame, seconds from the start of timing until it was written.
    latencies: for each frame, seconds from the arrival of its pose or picture until it was written.
    extra: figures of `follow` only, by name; see there.
  """

  fps: float
  start_up: float
  written: list[float]
  latencies: list[float]
  extra: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, float]:
    """Returns the figures of `generate --live --json`; latency_95 is the 95th percentile.

    frames_per_second is the rate from the first frame to the last (0 for a single frame); latency_last shows whether
    frames keep up with the poses or fall behind.
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
      **self.extra,
    }


def play(
  person: Person,
  motion: Motion,
  write: Callable[[UInt8[NdArray, "H W 3"]], object],
  reference: Reference | None = None,
  seed: int = 0,
  rate: float | None = None,
  clock: Callable[[], float] = time.monotonic,
  sleep: Callable[[float], None] = time.sleep,
) -> Timing:
  """Animates a person while the motion arrives, and returns the timing; the head repaints each window at once.

  Args:
    person: with short windows, see `flags.SHORT_WINDOWS`.
    motion: read as it arrives, so its length need not be known.
    write: receives each frame.
    reference, seed: as in `Person.animate`.
    rate: poses per second; default the motion's. Infinity takes them as fast as they are used.
    clock, sleep: this machine's; replaced in tests.

  Raises:
    UserError: as in `Person.animate`.
  """
  began, rate, person = clock(), motion.fps if rate is None else rate, with_prompt_head(person)
  for _ in person.animate(motion.first(_WARM_UP * person.body.sample.window), reference, seed):
    pass
  start, taken, written = clock(), [], []
  frames = _paced(motion.frames(0), rate, start, taken, clock, sleep)
  for frame in person.animate(live_motion(motion.fps, motion.size, frames), reference, seed):
    write(frame)
    written.append(clock())
  latencies = [end - pose for end, pose in zip(written, taken, strict=False)]
  return Timing(rate, start - began, [end - start for end in written], latencies)


def _paced(
  frames: Iterator[MotionFrame], rate: float, start: float, taken: list[float], clock: Any, sleep: Any
) -> Iterator[MotionFrame]:
  """The frames, each at its due time, which is appended to `taken`; overdue frames come at once."""
  for number, frame in zip(itertools.count(), frames):
    due = start + (number + 1) / rate if rate < float("inf") else clock()
    while (wait := due - clock()) > 0:
      sleep(wait)
    taken.append(due)
    yield frame


def with_prompt_head(person: Person) -> Person:
  """Returns the person with a head that repaints each window of the body as soon as it is done."""
  return person if person.head is None else person.with_sampling("head", windows_per_batch=person.body.sample.window)


def warm_up(person: Person, reference: Reference | None = None, seed: int = 0) -> None:
  """Compiles or loads the programs that `follow` runs; arguments as there."""
  size = person.body.frame_size
  empty = np.zeros((*size.shape, 3), np.uint8)
  blank = MotionFrame(empty, empty[..., :1], face_template(min(size)).astype(np.float32), empty)
  frames = iter([blank] * (_WARM_UP * person.body.sample.window))
  for _ in with_prompt_head(person).animate(live_motion(1.0, person.size, frames), reference, seed):
    pass


def follow(
  person: Person,
  poses: Iterator[LivePose],
  fps: float,
  write: Callable[[UInt8[NdArray, "H W 3"], float], object],
  reference: Reference | None = None,
  seed: int = 0,
  frames: int | None = None,
  clock: Callable[[], float] = time.monotonic,
) -> Timing:
  """Animates a person from somebody in front of a camera, and returns the timing.

  While a frame is computed, a second thread renders the next pose and a third finds the landmarks after that; nothing
  runs further ahead. `Timing.extra` has the share of pictures dropped between the first and the last frame, and the
  median seconds for finding landmarks and for rendering a pose.

  Args:
    person: with windows of one frame.
    poses: from `following.track_live`.
    fps: pictures per second.
    write: receives each frame and its picture's time in seconds of the clock.
    reference, seed: as in `Person.animate`.
    frames: stop after this many frames; default when the pictures end.
    clock: this machine's, which also stamped the pictures.

  Raises:
    UserError: from `poses`, as in `Person.animate`, or because there was no pose at all.
  """
  start, taken, written = clock(), [], []

  def rendered() -> Iterator[tuple[tuple[float, ...], MotionFrame]]:
    for item in itertools.islice(in_thread(poses), frames):
      begun = clock()
      frame = pose_frame(item.driver, item.track)
      yield (item.number, item.time, item.seconds, clock() - begun), frame

  def motion_frames() -> Iterator[MotionFrame]:
    for facts, frame in in_thread(rendered()):
      taken.append(facts)
      yield frame

  for frame in with_prompt_head(person).animate(live_motion(fps, person.size, motion_frames()), reference, seed):
    write(frame, taken[len(written)][1])
    written.append(clock())
  numbers, times, finding, drawing = zip(*taken[: len(written)])
  latencies = [end - came for end, came in zip(written, times, strict=True)]
  extra = {
    "dropped_share": 1 - len(numbers) / (numbers[-1] - numbers[0] + 1),
    "landmarks_median": sorted(finding)[len(finding) // 2],
    "drawing_median": sorted(drawing)[len(drawing) // 2],
  }
  return Timing(fps, written[0] - start, [end - start for end in written], latencies, extra)
