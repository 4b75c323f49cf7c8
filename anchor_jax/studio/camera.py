"""The studio's camera, and local coordinate frames in the picture.

World: meters, x to the picture's right, y up, z to the viewer, origin between the shoulders of a body at rest. The
camera has weak perspective: each solid is scaled by its distance, then drawn orthographically.
"""

import math
from dataclasses import dataclass

import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray

FRAME_METERS = 0.93  # height of a square picture in the plane of the shoulders
SHOULDER_ROW = 0.478  # of the shoulder line in a square picture, as a fraction of its height
DISTANCE = 2.3  # camera to shoulders, meters
FLIP = np.diag([1.0, -1.0, 1.0])  # world directions to picture directions


def turn(yaw: float, pitch: float, roll: float) -> Float[NdArray, "3 3"]:
  """Rotation matrix: yaw to the picture's right, pitch down, roll to the picture's right; radians."""
  (cy, cp, cr), (sy, sp, sr) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
  about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
  about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
  return about_y @ about_x @ about_z


@dataclass(frozen=True, slots=True)
class StudioCamera:
  """Projects meters to the pixels of a picture.

  A wide picture shows a square's person with more room on both sides. In a tall one the person is larger than in a
  square of its width, with more room above; the lower edge cuts the body as in a square.

  Attributes:
    size: of the picture.
    scale: factor on the size of the person.
  """

  size: FrameSize
  scale: float

  @property
  def side(self) -> float:
    """Side of the square picture with a person of this size, in pixels."""
    return float(min(self.size.height, math.sqrt(self.size.width * self.size.height)))

  def project(self, points: Float[NdArray, "N 3"]) -> tuple[Float[NdArray, "N 3"], Float[NdArray, " N"]]:
    """Pixels (x, y, z) of world points, and the pixels per meter at each point."""
    factor = (self.side / FRAME_METERS * self.scale) * DISTANCE / (DISTANCE - points[:, 2])
    x = 0.5 * self.size.width + points[:, 0] * factor
    y = (SHOULDER_ROW * self.side + (self.size.height - self.side)) - points[:, 1] * factor
    return np.stack([x, y, points[:, 2] * factor], axis=1), factor


@dataclass(frozen=True, slots=True)
class LocalFrame:
  """A local coordinate frame, such as the head's, placed in the picture.

  Attributes:
    origin: in pixels.
    axes: local axes as columns, in picture coordinates.
    unit: pixels per local unit of length.
  """

  origin: Float[NdArray, "3"]
  axes: Float[NdArray, "3 3"]
  unit: float

  def to_local(self, x: NdArray, y: NdArray, depth: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Local coordinates of points in pixels."""
    a = (self.axes / self.unit).astype(np.float32)
    dx, dy, dz = (v - np.float32(o) for v, o in zip((x, y, depth), self.origin, strict=True))
    return tuple(dx * a[0, i] + dy * a[1, i] + dz * a[2, i] for i in range(3))

  def to_picture(self, points: Float[NdArray, "N 3"]) -> Float[NdArray, "N 3"]:
    """Pixels of points in local coordinates."""
    return points @ (self.axes.T * self.unit) + self.origin
