"""Detectors of people and faces: single-shot networks, decoded by their anchors; overlapping finds are averaged."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.crops import Crop

_SAME = 0.3  # intersection over union from which two finds are of one


class Layout(NamedTuple):
  """What a detector's network takes and gives.

  Attributes:
    size: side of its input, in pixels.
    grids: (cells a side, anchors a cell) of each of its feature maps, in the order of its outputs.
  """

  size: int
  grids: tuple[tuple[int, int], ...]


POSE = Layout(224, ((28, 2), (14, 2), (7, 6)))
FACE_NEAR = Layout(128, ((16, 2), (8, 6)))
FACE_FAR = Layout(192, ((48, 1),))


class Find(NamedTuple):
  """A person or a face in a picture.

  Attributes:
    score: 0 to 1.
    box: left, top, right, bottom, in pixels of the picture.
    points: the detector's points, in pixels.
  """

  score: float
  box: Float[NdArray, "4"]
  points: Float[NdArray, "K 2"]


class Detector:
  """Finds people or faces in a crop of a picture."""

  def __init__(self, network: Callable[..., Sequence[NdArray]], layout: Layout, least: float):
    """Prepares the anchors.

    Args:
      network: a `LiteNetwork` that returns boxes and logits.
      layout: its input and feature maps.
      least: the score from which a find counts.
    """
    self._network, self._size, self._least = network, layout.size, least
    centers = []
    for cells, count in layout.grids:
      y, x = np.mgrid[:cells, :cells]
      grid = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
      centers.append(np.repeat(grid, count, axis=0))
    self._anchors = np.concatenate(centers)

  def find(self, picture: UInt8[NdArray, "H W C"], crop: Crop) -> list[Find]:
    """What is found in the crop, the surest first."""
    boxes, logits = self._network(crop.cut(picture, self._size, -1.0, cv2.BORDER_CONSTANT))
    least = math.log(self._least / (1 - self._least))
    sure = np.flatnonzero(logits.ravel() >= least)
    if not len(sure):
      return []
    raw, scores = boxes[0][sure] / self._size, 1 / (1 + np.exp(-logits.ravel()[sure]))
    anchors = self._anchors[sure]
    middle, half = raw[:, :2] + anchors, raw[:, 2:4] / 2
    points = raw[:, 4:].reshape(len(sure), -1, 2) + anchors[:, None]
    places = np.concatenate([np.stack([middle - half, middle + half], axis=1), points], axis=1)
    merged = _merge(places, scores)
    return [
      Find(score, np.concatenate([found.min(axis=0), found.max(axis=0)]), placed[2:])
      for score, local in merged
      for placed in [crop.place(local)]
      for found in [placed[:2]]
    ]


def _merge(places: Float[NdArray, "N P 2"], scores: Float[NdArray, " N"]) -> list[tuple[float, Float[NdArray, "P 2"]]]:
  """Finds of one thing as one: the surest, placed at the average of those that overlap it, weighted by their scores."""
  found, left = [], np.argsort(-scores, kind="stable")
  while len(left):
    best = left[0]
    same = _overlap(places[best, :2], places[left, :2]) > _SAME
    same[0] = True
    group = left[same]
    found.append((float(scores[best]), np.average(places[group], axis=0, weights=scores[group]).astype(np.float32)))
    left = left[~same]
  return found


def _overlap(box: Float[NdArray, "2 2"], others: Float[NdArray, "N 2 2"]) -> Float[NdArray, " N"]:
  """Intersection over union."""
  common = np.clip(np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0]), 0, None).prod(axis=1)
  area = lambda corners: np.clip(corners[..., 1, :] - corners[..., 0, :], 0, None).prod(axis=-1)
  return common / np.maximum(area(box) + area(others) - common, 1e-12)
