"""The body of one person, picture by picture: points, how visible they are, and what the person's mask is read from."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.crops import Crop, circle_through, full_square
from anchor_jax.landmarks.networks.detectors import POSE, Detector
from anchor_jax.landmarks.networks.graphs import Graph
from anchor_jax.landmarks.networks.litert import LiteNetwork

BODY = 33
_LEAST = 0.5  # score of a person, and of a point's heat, from which it counts
_REFINED = 4  # cells of a heat map on each side of a point

# The one-euro filter (Casiez et al. 2012) of the points that place the next crop: cutoffs in Hz, speed in crops per
# second.
_RATE, _SPEED_CUTOFF, _LEAST_CUTOFF, _CUTOFF_BY_SPEED = 30.0, 1.0, 0.01, 10.0


class Body(NamedTuple):
  """A person's body in a picture.

  Attributes:
    points: in pixels; depth grows away from the viewer.
    visible: how likely each point is seen.
    present: how likely each point is in the picture.
    crop: where the networks looked.
    features: what `mask_network` reads; None where masks are not requested.
  """

  points: Float[NdArray, "33 3"]
  visible: Float[NdArray, " 33"]
  present: Float[NdArray, " 33"]
  crop: Crop
  features: tuple[Float[NdArray, "..."], ...] | None


class BodyFinder:
  """Finds the body near its place in the picture before, else with the detector of people."""

  def __init__(self, files: Mapping[str, bytes], pose: str, masks: bool):
    """Prepares the networks.

    Args:
      files: by name.
      pose: name of the pose network among them.
      masks: whether `mask_network` is to read from the bodies.
    """
    graph = Graph(files[pose])
    inner, _ = _inner_and_mask(graph)
    self._pose = LiteNetwork(graph.part(graph.inputs, [*_outer(graph), *(inner if masks else [])]))
    self._people = Detector(LiteNetwork(files["pose_detection"]), POSE, _LEAST)
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._person: Crop | None = None
    self._ends: tuple[Float[NdArray, "2 2"], Float[NdArray, "2 2"], Float[NdArray, "2 2"]] | None = None

  def find(self, picture: UInt8[NdArray, "H W C"]) -> Body | None:
    """Finds the body in the next picture."""
    crop = self._person
    if crop is None:
      self._ends = None
      people = self._people.find(picture, full_square(picture))
      if not people:
        return None
      hips, edge = people[0].points[:2]
      crop = circle_through(hips, edge, 90).square(1.25)
    self._person = None
    outputs = self._pose(crop.cut(picture, 256)) if crop.finite else None
    if outputs is None or outputs[1].ravel()[0] < _LEAST:
      return None
    raw, heat, features = outputs[0].reshape(39, 5), outputs[2][0], tuple(outputs[3:])
    points = crop.place(refine(raw[:, :3] / 256, heat))
    ends = self._steady(points[BODY : BODY + 2, :2])
    self._person = circle_through(ends[0], ends[1], 90).square(1.25)
    visible, present = (1 / (1 + np.exp(-raw[:BODY, column])) for column in (3, 4))
    return Body(points[:BODY], visible, present, crop, features or None)

  def _steady(self, ends: Float[NdArray, "2 2"]) -> Float[NdArray, "2 2"]:
    """The points that place the next crop, smoothed unless they move: a crop that jitters makes the points jitter."""
    if self._ends is None:
      self._ends = (ends, ends, np.zeros_like(ends))
      return ends
    raw, smooth, speed = self._ends
    side = max(2 * float(np.hypot(*(ends[1] - ends[0]))), 1.0)
    speed = speed + _pass(_SPEED_CUTOFF) * ((ends - raw) / side * _RATE - speed)
    smooth = smooth + _pass(_LEAST_CUTOFF + _CUTOFF_BY_SPEED * np.abs(speed)) * (ends - smooth)
    self._ends = (ends, smooth, speed)
    return smooth


def mask_network(files: Mapping[str, bytes], pose: str) -> LiteNetwork:
  """The rest of a pose network: from a body's features to logits [1 256 256 1], the person's share of the crop's cells.

  It takes half as long as what `BodyFinder` runs of that network, and depends on no picture before.
  """
  graph = Graph(files[pose])
  inner, mask = _inner_and_mask(graph)
  return LiteNetwork(graph.part(inner, [mask]))


def _outer(graph: Graph) -> list[int]:
  """The pose network's points, score and heat."""
  points, score, _, heat, _ = graph.outputs
  return [points, score, heat]


def _inner_and_mask(graph: Graph) -> tuple[list[int], int]:
  """What the pose network computes its mask from, and the mask."""
  mask = graph.outputs[2]
  return graph.border(_outer(graph), [mask]), mask


def _pass(cutoff: float | Float[NdArray, "2 2"]) -> float | Float[NdArray, "2 2"]:
  """The share of a new value in a low-pass filter with this cutoff, in Hz."""
  return 1 / (1 + _RATE / (2 * math.pi * cutoff))


def refine(points: Float[NdArray, "N 3"], heat: Float[NdArray, "H W N"]) -> Float[NdArray, "N 3"]:
  """Returns points moved to the middle of the heat around them, where there is enough of it; places are 0 to 1."""
  height, width, count = heat.shape
  x, y = points[:, 0] * width, points[:, 1] * height
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  near = np.arange(-_REFINED, _REFINED + 1)
  columns = np.where(inside, x, 0).astype(int)[:, None, None] + near
  rows = np.where(inside, y, 0).astype(int)[:, None, None] + near[:, None]
  there = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
  logits = heat[rows.clip(0, height - 1), columns.clip(0, width - 1), np.arange(count)[:, None, None]]
  sure = np.where(there, 1 / (1 + np.exp(-logits)), 0)
  moved = inside & (sure.max(axis=(1, 2)) >= _LEAST)
  total = np.where(moved, sure.sum(axis=(1, 2)), 1)
  refined = points.copy()
  refined[moved, 0] = ((columns * sure).sum(axis=(1, 2)) / total / width)[moved]
  refined[moved, 1] = ((rows * sure).sum(axis=(1, 2)) / total / height)[moved]
  return refined
