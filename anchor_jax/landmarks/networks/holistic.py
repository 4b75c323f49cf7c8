"""Body, face and hands of a person, picture by picture: each network reads a crop from the network before it.

The networks, crops, thresholds and rules for reusing a crop in the next picture are those of MediaPipe Holistic
(Grishchenko and Bazarevsky 2020; the numbers are in its published graphs). Points are not smoothed here.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import BODY, Body, BodyFinder, mask_network
from anchor_jax.landmarks.networks.crops import aligned
from anchor_jax.landmarks.networks.faces import FACE, FaceFinder
from anchor_jax.landmarks.networks.hands import HAND, HandFinder
from anchor_jax.landmarks.networks.outlines import OutlineFinder


class Detection(NamedTuple):
  """The landmarks of one picture; points as in `Track`, NaN where nothing was found.

  Attributes:
    body, face, hands: the points.
    share: the person's share of each pixel, 0 to 255; None where it was not requested.
    visible: for each body point how sure it is that the picture shows it, 0 to 1; None if unknown.
  """

  body: Float[NdArray, "33 3"]
  face: Float[NdArray, "478 3"]
  hands: Float[NdArray, "2 21 3"]
  share: UInt8[NdArray, "H W"] | None
  visible: Float[NdArray, " 33"] | None = None


class Holistic:
  """Finds one person in the pictures of a film, which it is shown in order.

  Body, face, each hand and the mask have a thread each, in which they go from picture to picture: each depends on its
  own picture before, and on the body in this one. So what is found does not depend on timing or the number of cores.
  """

  def __init__(self, files: Mapping[str, bytes], masks: bool = True, pose: str = "pose_landmark_full"):
    """Prepares the networks.

    Args:
      files: of files.py, by name.
      masks: whether to find the person's share of each pixel, too.
      pose: name of the pose network.
    """
    self._body = BodyFinder(files, pose, masks)
    hands = HandFinder(files, 0), HandFinder(files, 1)
    self._parts = (FaceFinder(files), *hands, *([OutlineFinder(mask_network(files, pose))] if masks else []))
    self._unsettled = False  # whether results may still be late
    self._late = {hand: _Late() for hand in hands}
    self._threads = {finder: ThreadPoolExecutor(1) for finder in (self._body, *self._parts)}

  def reset(self) -> None:
    """Forgets the pictures before."""
    self.settle()
    for finder, thread in self._threads.items():
      thread.submit(finder.reset)

  def close(self) -> None:
    """Ends the threads."""
    for thread in self._threads.values():
      thread.shutdown(cancel_futures=True)

  def settle(self) -> None:
    """Lets the results of all pictures so far come: those that may take the next two, of which there are none."""
    for hand, results in self._late.items() if self._unsettled else ():
      results.add(self._threads[hand].submit(hand.settle))
    self._unsettled = False

  def find(self, picture: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds the person in the next picture."""
    return self.start(picture)()

  def start(self, picture: UInt8[NdArray, "H W 3"], late: bool = False) -> Callable[[], Detection]:
    """Starts on the next picture, and returns what waits for the result; several pictures may be started.

    Args:
      picture: RGB.
      late: whether the result may take the next two pictures, or `settle`, which saves work (`HandFinder.find_late`).
    """
    if not late:
      self.settle()
    self._unsettled = late
    fast = aligned(picture)
    body = self._threads[self._body].submit(self._body.find, fast)
    parts = [self._start(part, fast, body, late) for part in self._parts]

    def result() -> Detection:
      found = body.result()
      face, left, right, *share = (part() for part in parts)
      return Detection(
        _toward(None if found is None else found.points, BODY), _toward(face, FACE),
        np.stack([_toward(left, HAND), _toward(right, HAND)]), share[0] if share else None,
        np.zeros(BODY, np.float32) if found is None else np.minimum(found.visible, found.present),
      )  # fmt: skip

    return result

  def _start(
    self, part: Any, picture: UInt8[NdArray, "H W C"], body: Future[Body | None], late: bool
  ) -> Callable[[], Any]:
    thread = self._threads[part]
    if late and part in self._late:
      return self._late[part].add_picture(thread.submit(lambda: part.find_late(picture, body.result())))
    return thread.submit(lambda: part.find(picture, body.result())).result


class _Late:
  """Results of a finder that come in order, each with the task of its picture or with a later one."""

  def __init__(self) -> None:
    """Starts without tasks."""
    self._tasks: deque[Future[Sequence[Any]]] = deque()
    self._came: dict[int, Any] = {}
    self._count = self._pictures = 0

  def add(self, task: Future[Sequence[Any]]) -> None:
    """Adds a task, which returns the results that come with it."""
    self._tasks.append(task)

  def add_picture(self, task: Future[Sequence[Any]]) -> Callable[[], Any]:
    """Adds the task of a picture, and returns what waits for its result."""
    self.add(task)
    number, self._pictures = self._pictures, self._pictures + 1
    return lambda: self._result(number)

  def _result(self, number: int) -> Any:
    while number not in self._came:
      for result in self._tasks.popleft().result():
        self._came[self._count] = result
        self._count += 1
    return self._came.pop(number)


def _toward(points: Float[NdArray, "N 3"] | None, count: int) -> Float[NdArray, "N 3"]:
  """With depth that grows toward the viewer; the networks' grows away. NaN where there are none."""
  if points is None:
    return np.full((count, 3), np.nan, np.float32)
  return points * np.array([1, 1, -1], np.float32)
