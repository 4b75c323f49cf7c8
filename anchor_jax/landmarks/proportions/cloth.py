"""Cloth shift: how a person's clothes and hair slide over the fitted body, as a linear function of the pose.

The solids that are fitted to a person are rigid, but a raised arm pulls the shirt along. So the surface map says that a
pixel shows one texel of the shirt, and the film shows its neighbor. Most of that follows from the pose: it is fitted
once to the person's film (texture/registration/), and belongs to the person as lengths and widths do.
"""

import dataclasses
import json
import math
import zlib
from typing import Any

import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray
from anchor_jax.landmarks.tracks import EARS, ELBOWS, HIPS, NOSE, SHOULDERS, WRISTS

CELLS = 8  # each chart of a surface map has CELLS x CELLS cells
CHARTS = 256  # that a surface map can number
FEATURES = 20  # numbers that describe a pose
RANK = 6  # independent patterns of movement
_STEP = 1e-4  # shifts are stored in multiples of this
LARGEST = 4.0  # shoulder widths per pattern; a larger stored shift is damaged
_MOST = 1e5  # a stored number beyond this is damaged
_LEAST_SCALE = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)  # comparing arrays gives an array, not a bool
class ClothShift:
  """How far each cell of the body's surface slides in the picture, in shoulder widths, for a pose.

  Attributes:
    mean, scale: of the pose's features over the person's film.
    low, high: range of the features, in units of `scale` from `mean`; poses outside count as at its edge.
    patterns: from 1 and the features to the size of each pattern of movement.
    cells: numbers of the cells that move, (chart * CELLS + row) * CELLS + column.
    shifts: how far each of these moves in each pattern, right and down.
    explained: share of the squared movement in held-out frames that the pose explains.
  """

  mean: Float[NdArray, " F"]
  scale: Float[NdArray, " F"]
  low: Float[NdArray, " F"]
  high: Float[NdArray, " F"]
  patterns: Float[NdArray, "R F1"]
  cells: Int[NdArray, " M"]
  shifts: Float[NdArray, "M 2 R"]
  explained: float

  def of_pose(self, features: Float[NdArray, " F"]) -> Float[NdArray, "N 2"]:
    """Returns the shift of all cells of all charts for a pose from `pose_features`; 0 for those that never move."""
    standard = np.clip((features - self.mean) / self.scale, self.low, self.high)
    sizes = self.patterns[:, 0] + self.patterns[:, 1:] @ standard
    table = np.zeros((CHARTS * CELLS**2, 2), np.float32)
    table[self.cells] = self.shifts @ sizes
    return table

  def summary(self) -> str:
    """Returns a sentence for reports."""
    return f"the pose explains {100 * self.explained:.0f} % of how clothes and hair slide over the body"

  def checksum(self) -> str:
    """Returns eight hexadecimal digits that differ between shifts."""
    return f"{zlib.crc32(json.dumps(self.to_json(), sort_keys=True).encode()):08x}"

  def to_json(self) -> dict[str, Any]:
    """Returns the numbers by name; shifts as integers."""
    rounded = lambda values: np.round(values.astype(float), 4).tolist()
    numbers = {name: rounded(getattr(self, name)) for name in ("mean", "scale", "low", "high", "patterns")}
    steps = np.rint(self.shifts / _STEP).astype(int).reshape(len(self.cells), -1)
    shared = {"cells": self.cells.tolist(), "shifts": steps.tolist(), "explained": round(self.explained, 3)}
    return numbers | shared

  @classmethod
  def from_json(cls, values: Any) -> "ClothShift":
    """Returns the shift that `to_json` wrote.

    Raises:
      ValueError, KeyError or TypeError: the values are no such numbers.
    """
    vectors = {name: _numbers(values[name]) for name in ("mean", "scale", "low", "high")}
    patterns = np.stack([_numbers(row) for row in values["patterns"]])
    cells, steps = values["cells"], [_numbers(row) for row in values["shifts"]]
    (explained,) = _numbers([values["explained"]])
    fits = all(vector.shape == (FEATURES,) for vector in vectors.values()) and 0 <= explained <= 1
    fits = fits and len(patterns) <= RANK and patterns.shape[1] == FEATURES + 1 and len(steps) == len(cells)
    fits = fits and all(type(cell) is int and 0 <= cell < CHARTS * CELLS**2 for cell in cells)
    fits = fits and len(set(cells)) == len(cells) and all(len(row) == 2 * len(patterns) for row in steps)
    if not fits or not (vectors["scale"] >= _LEAST_SCALE).all() or not (vectors["low"] <= vectors["high"]).all():
      raise ValueError("cloth shift")
    shifts = np.array(steps, np.float32).reshape(len(cells), 2, len(patterns)) * np.float32(_STEP)
    if not (np.abs(shifts) <= LARGEST).all():
      raise ValueError("cloth shift")
    return cls(**vectors, patterns=patterns, cells=np.array(cells, np.int64), shifts=shifts, explained=float(explained))


def _numbers(values: Any) -> Float[NdArray, " N"]:
  """A list of numbers from a file; raises ValueError for anything else."""
  if not all(type(value) in (int, float) and abs(value) <= _MOST for value in values):
    raise ValueError("cloth shift")
  return np.array(values, np.float32)


def pose_features(body: Float[NdArray, "*T 33 3"], shoulders: float) -> Float[NdArray, "*T F"]:
  """Returns what the shift of cloth depends on: where arms, hips and head are, seen from the shoulders.

  Args:
    body: points of the body, without gaps.
    shoulders: distance between the person's shoulders, in the points' unit.
  """
  flat = body[..., :2].astype(np.float64)
  left, right = flat[..., SHOULDERS[0], :], flat[..., SHOULDERS[1], :]
  ears = flat[..., EARS[0], :], flat[..., EARS[1], :]
  points = [flat[..., point, :] - (left + right) / 2 for point in (*ELBOWS, *WRISTS, NOSE, *HIPS)]
  turned = [left - right, ears[0] - ears[1], flat[..., NOSE, :] - (ears[0] + ears[1]) / 2]
  return (np.concatenate([*points, *turned], axis=-1) / max(shoulders, math.ulp(1.0))).astype(np.float32)
