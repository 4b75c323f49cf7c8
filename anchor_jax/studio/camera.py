"""The studio's camera: from meters to pixels, and local frames under it.

World: meters, x to the picture's right, y up, z to the viewer, origin between the shoulders of an unmoved body. The
camera is weakly perspective: every solid is scaled by its own distance, then drawn orthographically.
"""

from dataclasses import dataclass

import numpy as np

from anchor_jax.core.shapes import Float, NdArray

FRAME_METERS = 0.93  # picture height in the plane of the shoulders
SHOULDER_ROW = 0.478  # where the shoulder line sits, share of the picture's height
DISTANCE = 2.3  # camera to shoulders, meters
FLIP = np.diag([1.0, -1.0, 1.0])  # world directions to picture directions


def turn(yaw: float, pitch: float, roll: float) -> Float[NdArray, "3 3"]:
  """Rotation: yaw to the picture's right, pitch down, roll to the picture's right; radians."""
  (cy, cp, cr), (sy, sp, sr) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
  about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
  about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
  return about_y @ about_x @ about_z


@dataclass(frozen=True, slots=True)
class Camera:
  """Meters to pixels of a square picture of `size` pixels."""

  size: int
  scale: float  # of the person

  def project(self, points: Float[NdArray, "N 3"]) -> tuple[Float[NdArray, "N 3"], Float[NdArray, " N"]]:
    """Pixels (x, y, z) of world points, and pixels a meter at each."""
    factor = (self.size / FRAME_METERS * self.scale) * DISTANCE / (DISTANCE - points[:, 2])
    x = 0.5 * self.size + points[:, 0] * factor
    y = SHOULDER_ROW * self.size - points[:, 1] * factor
    return np.stack([x, y, points[:, 2] * factor], axis=1), factor


@dataclass(frozen=True, slots=True)
class Frame:
  """A local frame under the camera: `own(x, y, depth)` takes pixels back to it.

  Attributes:
    origin: pixels; axes: [3, 3] own axes as columns, picture coordinates; unit: pixels a unit of own length.
  """

  origin: Float[NdArray, "3"]
  axes: Float[NdArray, "3 3"]
  unit: float

  def own(self, x: NdArray, y: NdArray, depth: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Own coordinates of picture points."""
    a = (self.axes / self.unit).astype(np.float32)
    dx, dy, dz = (v - np.float32(o) for v, o in zip((x, y, depth), self.origin, strict=True))
    return tuple(dx * a[0, i] + dy * a[1, i] + dz * a[2, i] for i in range(3))

  def picture(self, points: Float[NdArray, "N 3"]) -> Float[NdArray, "N 3"]:
    """Pixels of own points."""
    return points @ (self.axes.T * self.unit) + self.origin
