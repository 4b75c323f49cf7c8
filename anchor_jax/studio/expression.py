"""Curves of mouth and eyes at one instant: lips, lids and irises on the head.

Points are (u, v) in the head's frame: right and up, in half head heights.
"""

from dataclasses import dataclass

import numpy as np

from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.identity import Identity
from anchor_jax.studio.motion import MotionState

EYE_ROW = -0.04
MOUTH_ROW = -0.575


@dataclass(frozen=True, slots=True)
class Mouth:
  """Curves of the mouth at one instant, in half head heights."""

  half_width: float
  row: float
  smile: float
  opening: float
  upper_lip: float
  lower_lip: float

  def edges(self, x: NdArray) -> tuple[NdArray, NdArray]:
    """Rows of the inner edges of upper and lower lip at x = u / half_width."""
    hill = np.maximum(1 - x * x, 0)
    middle = self.row + np.float32(0.012 + 0.062 * self.smile) * (x * x)
    return middle + np.float32(0.035 * self.opening) * hill, middle - np.float32(0.205 * self.opening) * hill

  def lips(self, x: NdArray) -> tuple[NdArray, NdArray]:
    """Heights of upper and lower lip at x = u / half_width."""
    hill = np.maximum(1 - x * x, 0)
    bow = 1 - np.float32(0.26) * np.exp(-((x / np.float32(0.14)) ** 2))
    up = np.float32(self.upper_lip) * hill ** np.float32(0.65) * bow + np.float32(1e-4)
    return up, np.float32(self.lower_lip * (1 - 0.15 * self.smile)) * hill ** np.float32(0.55) + np.float32(1e-4)


def mouth_of(identity: Identity, state: MotionState) -> Mouth:
  """The mouth at an instant of a motion."""
  opening, wide, smile = (float(v) for v in state.mouth)
  width = identity.mouth_width * (1 + 0.15 * wide + 0.12 * smile - 0.06 * opening)
  opening = min(max(opening, 0.0), 1.25)
  return Mouth(width, MOUTH_ROW, smile, opening, identity.lip_upper, identity.lip_lower)


@dataclass(frozen=True, slots=True)
class Eye:
  """Curves of one eye at one instant, in half head heights.

  Attributes:
    sign: -1 for the eye on the picture's left, 1 for the other.
    gap: from the middle of the face to the middle of the eye.
    size: half of its width.
    tilt: slope towards the outer corner.
    height: of the open upper lid's edge in the middle of the eye.
    closed: 0 open to 1 closed.
    look: -1 down to 1 up.
    iris: u (outwards) and v of the iris from the middle of the eye.
  """

  sign: float
  gap: float
  size: float
  tilt: float
  height: float
  closed: float
  look: float
  iris: tuple[float, float]

  def to_local(self, u: NdArray, v: NdArray) -> tuple[NdArray, NdArray]:
    """Coordinates in the eye: x from -1 at the inner to 1 at the outer corner, y up in half head heights."""
    x = (u * np.float32(self.sign) - np.float32(self.gap)) / np.float32(self.size)
    return x, v - np.float32(EYE_ROW) - np.float32(self.tilt * self.size) * x

  def lids(self, x: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Rows y of the edges of lower and upper lid, and of the crease above the upper lid."""
    arch = np.maximum(1 - x * x, 0) ** np.float32(0.75)
    lower = np.float32(-0.60 * self.height) * arch
    upper = np.float32(1.0 * self.height * (1 + 0.12 * self.look)) * arch * np.float32(1 - self.closed) + (
      lower + np.float32(0.004)
    ) * np.float32(self.closed)
    return lower, upper, np.float32(1.28 * self.height) * arch + np.float32(0.02)

  def ball(self, x: NdArray, y: NdArray) -> tuple[NdArray, NdArray]:
    """Coordinates on the eyeball from the middle of the iris: outwards and up, in half head heights."""
    return x * np.float32(self.size) - np.float32(self.iris[0]), y - np.float32(self.iris[1])


def eye_of(identity: Identity, state: MotionState, side: int) -> Eye:
  """The eye on the picture's left (side 0) or right (1)."""
  sign, size, look = -1.0 if side == 0 else 1.0, identity.eye_size, float(state.gaze[1])
  height = identity.eye_open * size * (1 + 0.10 * float(state.brows[side]))
  gaze_x = (float(state.gaze[0]) * 0.34 - 0.30 * float(state.head[0])) * size * sign
  gaze_y = 0.035 * size + 0.16 * size * look + 0.10 * size * float(state.head[1])
  return Eye(sign, identity.eye_gap, size, identity.eye_tilt, height, float(state.blink), look, (gaze_x, gaze_y))
