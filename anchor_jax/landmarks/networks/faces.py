"""The face of one person, picture by picture, in a crop that the body or the face before gives."""

from collections.abc import Mapping

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import Body
from anchor_jax.landmarks.networks.crops import Crop, box_around, turn_of
from anchor_jax.landmarks.networks.detectors import FACE_NEAR, Detector
from anchor_jax.landmarks.networks.litert import AttentionFaceNetwork, LiteNetwork

FACE = 478
_LEAST = 0.5  # score of a face, from which it counts
# The detector is asked again after so many pictures, or when the body's head has turned (degrees), moved or grown
# (shares of the wide crop).
_DETECTED, _STILL = 2, (10, 0.04, 0.05)


class FaceFinder:
  """Finds the face that belongs to a body."""

  def __init__(self, files: Mapping[str, bytes]):
    """Prepares the networks in `files`, by name."""
    self._faces = Detector(LiteNetwork(files["face_detection_short_range"]), FACE_NEAR, _LEAST)
    self._face = AttentionFaceNetwork(files["face_landmark_with_attention"])
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._last: Float[NdArray, "478 3"] | None = None
    self._detected: tuple[Crop, Crop, int] | None = None  # from where to where, and how many pictures ago

  def find(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> Float[NdArray, "478 3"] | None:
    """Finds the face in the next picture; depth grows away from the viewer."""
    self._last = None if body is None else self._find(picture, body.points)
    return self._last

  def _find(self, picture: UInt8[NdArray, "H W C"], body: Float[NdArray, "33 3"]) -> Float[NdArray, "478 3"] | None:
    wide = box_around(body[:11], turn_of(body[5], body[2], 0)).square(3.0)
    if not wide.finite:
      return None
    crop = self._crop(picture, wide)
    if crop is None or not crop.finite:
      return None
    points, logit = self._face(crop.cut(picture, 192))
    return crop.place(points / 192) if logit > 0 else None

  def _crop(self, picture: UInt8[NdArray, "H W C"], wide: Crop) -> Crop | None:
    """Where to look for the face: around the face before, if it is near enough to the detector's."""
    last = self._last
    before = None if last is None else box_around(last, turn_of(last[33], last[263], 0)).square(1.5)
    kept = lambda crop: before is not None and before.near(crop, 15, 0.1, 0.3) and crop.contains(last, -0.2)
    if before is not None and self._detected is not None:
      start, crop, age = self._detected
      if age < _DETECTED and wide.near(start, *_STILL) and kept(crop.carried(start, wide)):
        self._detected = start, crop, age + 1
        return before
    faces = self._faces.find(picture, wide)
    if not faces:
      return None
    eyes = faces[0].points
    crop = box_around(eyes, turn_of(eyes[0], eyes[1], 0)).square(2.0, -0.1)
    self._detected = wide, crop, 0
    return before if before is not None and kept(crop) else crop
