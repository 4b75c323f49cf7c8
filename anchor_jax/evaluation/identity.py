"""Whether a generated face is hers: distances of face descriptors by dlib's network (extra `identity`).

Descriptors have 128 numbers; its authors call two faces the same person's where they are less than 0.6 apart.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray, UInt8

SAME = 0.6  # the distance below which the network's authors take two faces for one person's
_FACE, _AROUND = 160, 0.6  # pixels that a face is enlarged to for the detector; margin on each side, in faces
_SIZE = 128


class IdentityMeasure:
  """Root mean square distance between the descriptors of all generated and all true faces, beside that of true ones.

  Sums alone are kept, so memory does not grow: over all pairs of frames, the mean squared distance is that of the means
  plus both variances. A frame without a face in its mask is left out; a face that the detector does not find counts as
  not found.
  """

  name, region = "identity", "face"

  def __init__(self):
    """Loads the models.

    Raises:
      UserError: they are not installed.
    """
    try:
      dlib, models = (importlib.import_module(name) for name in ("dlib", "face_recognition_models"))
    except ImportError:
      raise UserError("--identity needs models of faces: pip install 'anchor-jax[identity]'") from None
    self._find = dlib.get_frontal_face_detector()
    self._points = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
    self._network = dlib.face_recognition_model_v1(models.face_recognition_model_location())
    self._true, self._made = Spread(), {}
    self._looked = 0

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Takes in the next frame, as `Measure.add` does."""
    place = face_square(record["face_mask"])
    if place is None:
      return
    self._looked += 1
    self._true.add(self._describe(record["frame"], place))
    for name, image in images.items():
      self._made.setdefault(name, Spread()).add(self._describe(image, place))

  def _describe(self, image: UInt8[NdArray, "H W 3"], place: NdArray) -> Float[NdArray, " D"] | None:
    """The descriptor of the largest face in a square of the picture; None where there is none."""
    side = round(_FACE * (1 + 2 * _AROUND))
    crop = cv2.warpAffine(image, place, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    found = self._find(crop, 0)
    if not found:
      return None
    largest = max(found, key=lambda box: box.width() * box.height())
    return np.array(self._network.compute_face_descriptor(crop, self._points(crop, largest)))

  def figures(self) -> dict[str, float]:
    """The distances to the true faces, by contender."""
    return {name: made.distance(self._true) for name, made in self._made.items() if made.count and self._true.count}

  def details(self) -> dict[str, Any]:
    """The distance of true faces from each other, and in how many frames a face was looked for and found."""
    found = {name: made.count for name, made in self._made.items()}
    facts: dict[str, Any] = {"frames": self._looked, "found": {"truth": self._true.count, **found}}
    return facts | ({"of_truth": round(self._true.own_distance(), 4)} if self._true.count > 1 else {})


class Spread:
  """Mean and variance of descriptors that come one by one.

  Attributes:
    count: of the descriptors so far.
  """

  def __init__(self):
    self.count = 0
    self._mean, self._squares = np.zeros(_SIZE), 0.0  # squares: sum of squared distances from the mean

  def add(self, vector: Float[NdArray, " D"] | None) -> None:
    """Takes in the next one; None where none was found."""
    if vector is None:
      return
    self.count += 1
    shift = vector - self._mean
    self._mean = self._mean + shift / self.count
    self._squares += float(shift @ (vector - self._mean))

  def distance(self, other: "Spread") -> float:
    """Root mean square distance over all pairs, one of either."""
    apart = float(np.square(self._mean - other._mean).sum())
    return float(np.sqrt(apart + self._squares / self.count + other._squares / other.count))

  def own_distance(self) -> float:
    """Root mean square distance over all pairs of two different ones."""
    return float(np.sqrt(2 * self._squares / (self.count - 1)))


def face_square(mask: UInt8[NdArray, "H W 1"]) -> Float[NdArray, "2 3"] | None:
  """Returns the transform from a frame to the square that is looked at: the face's box with a margin, enlarged.

  None where no pixel is the face's.
  """
  rows, columns = (np.flatnonzero((mask[..., 0] > 127).any(axis=axis)) for axis in (1, 0))
  if not len(rows):
    return None
  height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
  scale = _FACE / max(height, width)
  middle = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
  return np.column_stack([np.eye(2) * scale, _FACE * (0.5 + _AROUND) - 0.5 - scale * middle])
