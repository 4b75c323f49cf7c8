"""Body, face and hands of a person, picture by picture: each network reads a crop from the network before it.

The networks, crops, thresholds and rules for reusing a crop in the next picture are those of MediaPipe Holistic
(Grishchenko and Bazarevsky 2020; the numbers are in its published graphs). Points are not smoothed here.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import BODY, BodyFinder
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
    self._parts = (FaceFinder(files), HandFinder(files, 0), HandFinder(files, 1), *([OutlineFinder()] if masks else []))
    self._threads = {finder: ThreadPoolExecutor(1) for finder in (self._body, *self._parts)}

  def reset(self) -> None:
    """Forgets the pictures before."""
    for finder, thread in self._threads.items():
      thread.submit(finder.reset)

  def close(self) -> None:
    """Ends the threads."""
    for thread in self._threads.values():
      thread.shutdown(cancel_futures=True)

  def find(self, picture: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds the person in the next picture."""
    return self.start(picture)()

  def start(self, picture: UInt8[NdArray, "H W 3"]) -> Callable[[], Detection]:
    """Starts on the next picture, and returns what waits for the result; several pictures may be started."""
    body = self._threads[self._body].submit(self._body.find, picture)
    parts: list[Future[Any]] = [
      self._threads[part].submit(lambda part=part: part.find(picture, body.result())) for part in self._parts
    ]

    def result() -> Detection:
      found = body.result()
      face, left, right, *share = (part.result() for part in parts)
      return Detection(
        _toward(None if found is None else found.points, BODY), _toward(face, FACE),
        np.stack([_toward(left, HAND), _toward(right, HAND)]), share[0] if share else None,
        np.zeros(BODY, np.float32) if found is None else np.minimum(found.visible, found.present),
      )  # fmt: skip

    return result


def _toward(points: Float[NdArray, "N 3"] | None, count: int) -> Float[NdArray, "N 3"]:
  """With depth that grows toward the viewer; the networks' grows away. NaN where there are none."""
  if points is None:
    return np.full((count, 3), np.nan, np.float32)
  return points * np.array([1, 1, -1], np.float32)
