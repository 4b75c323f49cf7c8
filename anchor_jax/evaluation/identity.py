"""Whether a generated face looks like the person: distances between dlib's face descriptors (extra `identity`).

A descriptor has 128 numbers; the network's authors take two faces for one person's if they are less than 0.6 apart.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray, UInt8

SAME = 0.6  # descriptor distance below which the network's authors take two faces for one person's
_FACE, _AROUND = 160, 0.6  # size in pixels to which a face is scaled for the detector; margin per side, in faces
_SIZE = 128


class IdentityMeasure:
  """RMS distance between the descriptors of all generated and all true faces, and among the true ones.

  Keeps only running sums: over all pairs of frames, the mean squared distance is that of the means plus both
  variances. Frames whose face mask is empty are skipped; faces that the detector misses count as not found.
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
    self._true, self._generated = Spread(), {}
    self._frames = 0

  def add(self, images: Mapping[str, UInt8[NdArray, "H W 3"]], record: Mapping[str, NdArray]) -> None:
    """Adds the next frame; see `Measure.add`."""
    place = face_square(record["face_mask"])
    if place is None:
      return
    self._frames += 1
    self._true.add(self._describe(record["frame"], place))
    for name, image in images.items():
      self._generated.setdefault(name, Spread()).add(self._describe(image, place))

  def _describe(self, image: UInt8[NdArray, "H W 3"], place: NdArray) -> Float[NdArray, " D"] | None:
    """The descriptor of the largest face in a square of the picture; None if there is none."""
    side = round(_FACE * (1 + 2 * _AROUND))
    crop = cv2.warpAffine(image, place, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    found = self._find(crop, 0)
    if not found:
      return None
    largest = max(found, key=lambda box: box.width() * box.height())
    return np.array(self._network.compute_face_descriptor(crop, self._points(crop, largest)))

  def figures(self) -> dict[str, float]:
    """Returns the distances to the true faces, by contender."""
    return {
      name: faces.distance(self._true) for name, faces in self._generated.items() if faces.count and self._true.count
    }

  def details(self) -> dict[str, Any]:
    """Returns the distance among true faces, and in how many frames a face was searched for and found."""
    found = {name: faces.count for name, faces in self._generated.items()}
    facts: dict[str, Any] = {"frames": self._frames, "found": {"truth": self._true.count, **found}}
    return facts | ({"of_truth": round(self._true.own_distance(), 4)} if self._true.count > 1 else {})


class Spread:
  """Running mean and variance of descriptors.

  Attributes:
    count: number of descriptors so far.
  """

  def __init__(self):
    self.count = 0
    self._mean, self._squares = np.zeros(_SIZE), 0.0  # squares: sum of squared distances from the mean

  def add(self, vector: Float[NdArray, " D"] | None) -> None:
    """Adds a descriptor; None (no face found) is ignored."""
    if vector is None:
      return
    self.count += 1
    shift = vector - self._mean
    self._mean = self._mean + shift / self.count
    self._squares += float(shift @ (vector - self._mean))

  def distance(self, other: "Spread") -> float:
    """Returns the RMS distance over all pairs, one from each set."""
    apart = float(np.square(self._mean - other._mean).sum())
    return float(np.sqrt(apart + self._squares / self.count + other._squares / other.count))

  def own_distance(self) -> float:
    """Returns the RMS distance over all pairs of different descriptors."""
    return float(np.sqrt(2 * self._squares / (self.count - 1)))


def face_square(mask: UInt8[NdArray, "H W 1"]) -> Float[NdArray, "2 3"] | None:
  """Returns the transform from a frame to the detector's input: the face's box with a margin, scaled.

  None if the mask is empty.
  """
  rows, columns = (np.flatnonzero((mask[..., 0] > 127).any(axis=axis)) for axis in (1, 0))
  if not len(rows):
    return None
  height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
  scale = _FACE / max(height, width)
  middle = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
  return np.column_stack([np.eye(2) * scale, _FACE * (0.5 + _AROUND) - 0.5 - scale * middle])
