"""The landmark model's face mesh from 68 face landmarks in the numbering of dlib, OpenPose and SMPL-X.

An affine map fits it to the 68 points, and a
thin-plate spline spreads the residuals over the mesh. Both are linear in the landmarks and combine to one matrix.
"""

import functools

import numpy as np

from anchor_jax.body.face_mesh import EYES, FaceMap, flatten
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.mean_face import mean_face

# The mesh points of the 68 landmarks: outline from the right temple (the person's) over the chin to the left one; right
# and left brow; ridge and base of the nose; right and left eye; outer and inner edge of the lips.
LANDMARKS_68 = (
  127, 234, 132, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 361, 454, 356,
  70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
  168, 197, 5, 4, 98, 97, 2, 326, 327,
  33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
  61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,
  78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip
IRISES = (range(468, 473), range(473, 478))  # the person's right and left iris, middle first


@functools.cache
def _spline() -> Float[NdArray, "N 68"]:
  """The matrix from 68 landmarks to all points of the mesh."""
  from scipy.interpolate import RBFInterpolator  # takes a fifth of a second to import

  points, triangles = mean_face()
  marked = list(LANDMARKS_68)
  level = np.concatenate([points, np.ones((len(points), 1))], axis=1)
  affine = level @ np.linalg.pinv(level[marked])
  # The residuals are interpolated on the flattened mesh, where the lips of a closed mouth are apart.
  closed = FaceMap(triangles, len(points)).triangles
  flat = flatten(closed, int(closed.max()) + 1)[: len(points)]
  for eye, iris in zip(EYES, IRISES, strict=True):  # irises are not part of the mesh
    flat[list(iris)] = flat[list(eye)].mean(axis=0)
  rest = RBFInterpolator(flat[marked], np.eye(68), kernel="thin_plate_spline")(flat)
  return affine + rest @ (np.eye(68) - affine[marked])


def mesh_of_landmarks(landmarks: Float[NdArray, "T 68 3"], pupils: Float[NdArray, "T 2 3"] | None = None) -> NdArray:
  """Returns all points of the landmark model's face mesh, float32 [T 478 3], in the landmarks' units.

  Args:
    landmarks: in the order of `LANDMARKS_68`; frames with NaN get NaN.
    pupils: centers of the person's right and left pupil; None looks straight ahead.
  """
  face = np.einsum("nl,tld->tnd", _spline(), np.asarray(landmarks, np.float64))
  if pupils is not None:
    for side, iris in enumerate(IRISES):
      face[:, list(iris)] += (pupils[:, side] - face[:, iris[0]])[:, None]
  return face.astype(np.float32)


def with_depth(landmarks: Float[NdArray, "T 68 2"]) -> Float[NdArray, "T 68 3"]:
  """Returns landmarks of pictures with depths taken from the mean face, rotated like the face.

  The rotation is that of the scaled orthographic projection that fits the mean face to the landmarks (POS, DeMenthon
  and Davis 1995): its two rows, orthogonalized, and their cross product.
  """
  points = mean_face()[0][list(LANDMARKS_68)]
  middle = points.mean(axis=0)
  centered = np.asarray(landmarks, np.float64) - np.mean(landmarks, axis=1, keepdims=True)
  rows = np.einsum("dl,tlc->tcd", np.linalg.pinv(points - middle), centered)
  # the nearest pair of perpendicular rows of equal length
  known = np.isfinite(rows).all(axis=(1, 2))
  u, sizes, vt = np.linalg.svd(np.where(known[:, None, None], rows, np.eye(2, 3)), full_matrices=False)
  turn, size = u @ vt, sizes.mean(axis=1)
  depth = size[:, None] * ((points - middle) @ np.cross(turn[:, 0], turn[:, 1])[..., None])[..., 0]
  depth[~known] = np.nan
  return np.concatenate([landmarks, depth[..., None]], axis=-1).astype(np.float32)
