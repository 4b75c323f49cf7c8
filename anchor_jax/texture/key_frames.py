"""Key frames: single photographs that together show as much of the person as possible, as sharply as possible."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.texture.texels import LEVELS

MOST_CANDIDATES = 256
_CELLS = 16  # each way; coverage is counted in cells of 4 x 4 texels
_POSE = 12  # each way; poses are compared at this size
_WITHOUT_FACE = 0.25  # what a frame counts at least, even where the face is not found or hidden
_SHARPEST = 1.5  # sharpness over the film's median beyond which more does not count


@dataclasses.dataclass(frozen=True)
class Candidate:
  """What is kept of a frame to judge it by.

  Attributes:
    index: of the frame in the film.
    block: of the frame.
    pixels: pixels spent on each cell of the texture.
    sharpness: mean gradient energy of the person, grey levels squared.
    face: pixels on which the face is seen; 0 where its landmarks are not known.
    pose: which chart is seen where, coarsely.
  """

  index: int
  block: int
  pixels: UInt8[NdArray, " cells"]
  sharpness: float
  face: int
  pose: UInt8[NdArray, " N"]


def is_candidate(index: int, count: int) -> bool:
  """Whether frame `index` of `count` is considered: all frames of a short film, evenly spaced ones of a long one."""
  step = -(-count // MOST_CANDIDATES)
  return index % step == 0


def judge(
  index: int,
  block: int,
  frame: UInt8[NdArray, "H W 3"],
  surface: UInt8[NdArray, "H W 3"],
  landmarks: Float[NdArray, "5 2"],
  is_face: Bool[NdArray, " charts"],
) -> Candidate:
  """Describes a frame.

  Args:
    index, block: of the frame.
    frame: the picture.
    surface: its surface map, 0 where the person is not.
    landmarks: points of the face, NaN where missing.
    is_face: for each chart, whether it is part of the face.
  """
  charts = len(is_face)
  seen = surface[surface[..., 0] > 0].astype(np.int64)
  cell = LEVELS // _CELLS
  place = (seen[:, 0] * _CELLS + seen[:, 2] // cell) * _CELLS + seen[:, 1] // cell
  pixels = np.bincount(place, minlength=charts * _CELLS**2)[: charts * _CELLS**2]
  grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
  energy = np.square(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.square(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
  inside = cv2.erode((surface[..., 0] > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
  sharpness = float(energy[inside].mean()) if inside.any() else 0.0
  pose = cv2.resize(surface[..., 0], (_POSE, _POSE), interpolation=cv2.INTER_NEAREST).ravel()
  face = int(is_face[surface[..., 0]].sum()) if np.isfinite(landmarks).all() else 0
  return Candidate(index, block, np.minimum(pixels, 255).astype(np.uint8), sharpness, face, pose)


def choose(candidates: Sequence[Candidate], blocks: Bool[NdArray, " blocks"], count: int) -> tuple[int, ...]:
  """Numbers in the film of up to `count` key frames, the most useful first; none where no frame may be seen.

  Greedy: each time the frame that adds most. A cell of the texture is worth as much as the best view of it has pixels,
  in shares of the best view that the film has; charts count by the square root of their size, so that hands, lips and
  lids weigh against the torso. What a frame adds counts less where it is blurred, hides the face or repeats a pose.

  Args:
    candidates: all frames that were judged.
    blocks: which blocks may be seen.
    count: of key frames.
  """
  usable = [candidate for candidate in candidates if blocks[candidate.block] and candidate.pixels.any()]
  if not usable:
    return ()
  pixels = np.stack([candidate.pixels for candidate in usable]).astype(np.float32)
  best = pixels.max(axis=0)
  by_chart = (best > 0).reshape(-1, _CELLS**2).sum(axis=1)
  seen = np.flatnonzero(best)
  views = pixels[:, seen] / best[seen]
  worth = (1 / np.sqrt(by_chart[seen // _CELLS**2])).astype(np.float32)
  sharpness = np.array([candidate.sharpness for candidate in usable])
  quality = np.clip(sharpness / max(float(np.median(sharpness)), 1e-6), 0, _SHARPEST)
  face = np.array([candidate.face for candidate in usable])
  quality *= np.clip(face / max(float(np.percentile(face, 90)), 1), _WITHOUT_FACE, 1)
  poses = np.stack([candidate.pose for candidate in usable])
  chosen: list[int] = []
  shown = np.zeros(len(seen), np.float32)
  while len(chosen) < min(count, len(usable)):
    gain = np.maximum(views - shown, 0) @ worth * quality
    if chosen:
      differ = np.stack([(poses != poses[i]).mean(axis=1) for i in chosen]).min(axis=0)
      gain *= np.minimum(1, differ / max(float(np.percentile(differ, 90)), 1e-6))
    gain[chosen] = -1
    chosen.append(int(gain.argmax()))
    shown = np.maximum(shown, views[chosen[-1]])
  return tuple(usable[i].index for i in chosen)
