"""Choice of key frames: the few frames of a film that together show most of the person, as sharply as possible."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.texture.texels import LEVELS

MAX_CANDIDATES = 256
_CELLS = 16  # per side of a chart; coverage is counted in cells of 4 x 4 texels
_POSE = 12  # height and width at which poses are compared
_WITHOUT_FACE = 0.25  # quality factor of a frame without a visible face
_MAX_SHARPNESS = 1.5  # relative to the film's median; sharper frames gain nothing


@dataclasses.dataclass(frozen=True)
class Candidate:
  """The statistics by which a frame is judged.

  Attributes:
    index: number of the frame in the film.
    block: number of its block.
    pixels: number of pixels that show each cell of the atlas, up to 255.
    sharpness: mean gradient energy on the person, gray levels squared.
    face: number of pixels that show the face; 0 where its landmarks are unknown.
    pose: chart numbers at low resolution.
  """

  index: int
  block: int
  pixels: UInt8[NdArray, " cells"]
  sharpness: float
  face: int
  pose: UInt8[NdArray, " N"]


def is_candidate(index: int, count: int) -> bool:
  """Whether frame `index` of `count` is a candidate: all frames of a short film, evenly spaced ones of a long one."""
  step = -(-count // MAX_CANDIDATES)
  return index % step == 0


def judge(
  index: int,
  block: int,
  frame: UInt8[NdArray, "H W 3"],
  surface: UInt8[NdArray, "H W 3"],
  landmarks: Float[NdArray, "5 2"],
  is_face: Bool[NdArray, " charts"],
) -> Candidate:
  """A frame's statistics.

  Args:
    index, block: of the frame.
    frame: the picture.
    surface: its surface map, 0 away from the person.
    landmarks: points of the face, NaN where missing.
    is_face: for each chart, whether it is part of the face.
  """
  charts = len(is_face)
  seen = surface[surface[..., 0] > 0].astype(np.int64)
  cell = LEVELS // _CELLS
  place = (seen[:, 0] * _CELLS + seen[:, 2] // cell) * _CELLS + seen[:, 1] // cell
  pixels = np.bincount(place, minlength=charts * _CELLS**2)[: charts * _CELLS**2]
  gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
  energy = np.square(cv2.Sobel(gray, cv2.CV_32F, 1, 0)) + np.square(cv2.Sobel(gray, cv2.CV_32F, 0, 1))
  inside = cv2.erode((surface[..., 0] > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
  sharpness = float(energy[inside].mean()) if inside.any() else 0.0
  pose = cv2.resize(surface[..., 0], (_POSE, _POSE), interpolation=cv2.INTER_NEAREST).ravel()
  face = int(is_face[surface[..., 0]].sum()) if np.isfinite(landmarks).all() else 0
  return Candidate(index, block, np.minimum(pixels, 255).astype(np.uint8), sharpness, face, pose)


def choose(candidates: Sequence[Candidate], blocks: Bool[NdArray, " blocks"], count: int) -> tuple[int, ...]:
  """Frame numbers of up to `count` key frames, the most useful first; none if no frame may be seen.

  Greedy: takes the frame with the largest gain each time. A cell's value is the pixel count of its best chosen view,
  relative to its best view in the film. Charts are weighted by the square root of their size, so that hands, lips and
  lids are not lost against the torso. The gain is reduced for frames that are blurred, hide the face or repeat a pose.

  Args:
    candidates: all judged frames.
    blocks: mask of the blocks that may be seen.
    count: number of key frames.
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
  quality = np.clip(sharpness / max(float(np.median(sharpness)), 1e-6), 0, _MAX_SHARPNESS)
  face = np.array([candidate.face for candidate in usable])
  quality *= np.clip(face / max(float(np.percentile(face, 90)), 1), _WITHOUT_FACE, 1)
  poses = np.stack([candidate.pose for candidate in usable])
  chosen: list[int] = []
  covered = np.zeros(len(seen), np.float32)
  while len(chosen) < min(count, len(usable)):
    gain = np.maximum(views - covered, 0) @ worth * quality
    if chosen:
      differ = np.stack([(poses != poses[i]).mean(axis=1) for i in chosen]).min(axis=0)
      gain *= np.minimum(1, differ / max(float(np.percentile(differ, 90)), 1e-6))
    gain[chosen] = -1
    chosen.append(int(gain.argmax()))
    covered = np.maximum(covered, views[chosen[-1]])
  return tuple(usable[i].index for i in chosen)
