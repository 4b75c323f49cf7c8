"""The face of one person, picture by picture, in a crop that the body or the face before gives."""

from collections.abc import Mapping

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import Body
from anchor_jax.landmarks.networks.crops import box_around, turn_of
from anchor_jax.landmarks.networks.detectors import FACE_NEAR, Detector
from anchor_jax.landmarks.networks.litert import AttentionFaceNetwork, LiteNetwork

FACE = 478
_LEAST = 0.5  # score of a face, from which it counts


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

  def find(self, picture: UInt8[NdArray, "H W 3"], body: Body | None) -> Float[NdArray, "478 3"] | None:
    """Finds the face in the next picture; depth grows away from the viewer."""
    self._last = None if body is None else self._find(picture, body.points)
    return self._last

  def _find(self, picture: UInt8[NdArray, "H W 3"], body: Float[NdArray, "33 3"]) -> Float[NdArray, "478 3"] | None:
    wide = box_around(body[:11], turn_of(body[5], body[2], 0)).square(3.0)
    faces = self._faces.find(picture, wide) if wide.finite else []
    if not faces:
      return None
    eyes = faces[0].points
    crop = box_around(eyes, turn_of(eyes[0], eyes[1], 0)).square(2.0, -0.1)
    last = self._last
    if last is not None:
      before = box_around(last, turn_of(last[33], last[263], 0)).square(1.5)
      if before.near(crop, 15, 0.1, 0.3) and crop.contains(last, -0.2):
        crop = before
    if not crop.finite:
      return None
    points, logit = self._face(crop.cut(picture, 192))
    return crop.place(points / 192) if logit > 0 else None
