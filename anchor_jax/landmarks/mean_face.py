"""The mean face: the points and triangles of the landmark networks' face mesh, without a film.

mean_face.npz holds the mean of the meshes found on 40 studio people at rest, symmetrized; on average they differ from
it by 1.2 % of the face's width.
"""

import functools
from pathlib import Path

import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray


@functools.cache
def mean_face() -> tuple[Float[NdArray, "N 3"], Int[NdArray, "K 3"]]:
  """Returns the mean face's 478 points and the triangles of its mesh.

  Half the face's width is 1: the person's right side is at (-1, 0, 0), the left at (1, 0, 0). y down, z to the viewer.
  """
  with np.load(Path(__file__).with_name("mean_face.npz")) as file:
    return file["points"].astype(np.float64), file["triangles"].astype(np.int32)
