"""Fits how a person's clothes and hair slide over the fitted body (`ClothShift`) to the person's film.

Optical flow says where each frame shows what the texture of all frames has at its surface. That flow, smoothed, is
explained by the pose: each cell of the surface has a ridge regression on the pose's features, weighted by the pixels
that show it. The ridge's strength is the one that best explains held-out stretches of the film; if none explains them,
nothing is fitted. A second round repeats this with the texture that the first one sharpened.
"""

from collections.abc import Sequence

import numpy as np

from anchor_jax.body.cloth import GROUPS, cells_of, moved_surface, shift_field
from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.landmarks.proportions.cloth import CELLS, CHARTS, LARGEST, RANK, ClothShift
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import FilmFrame, gather
from anchor_jax.texture.registration.flow import flow_onto

FRAMES = 160  # of a film that are compared, at most
_LEAST_FRAMES = 20
_LEAST_SIDE, _LEAST_SHOULDERS = 16, 4.0  # pixels; smaller people and pictures show nothing
_ROUNDS = 2
_RIDGES = (0.1, 0.3, 1.0, 3.0)
_HOLD = 2.0  # ridge of the mean shift, in frames that show the cell completely
_FULL = 64  # pixels that show a cell completely
_LEAST_SHOWN = 2.0  # frames that must show a cell
_FOLDS = 5
_LEAST_EXPLAINED = 0.1  # share of the squared flow in held-out frames that the pose must explain
_BEYOND = 0.3  # of their range in the film by which features may leave it
_LEAST_SPREAD = 0.03  # shoulder widths; a feature that hardly changes in the film explains little


def fit_cloth(
  frames: Sequence[FilmFrame], features: Float[NdArray, "T F"], shoulders: Float[NdArray, " T"]
) -> ClothShift | None:
  """Returns how a person's cloth slides; None if the film is too short or the pose explains too little of it.

  Args:
    frames: of the person's films, in order, `flow.HEIGHT` pixels high, with the surface maps of the solids.
    features: of their poses, from `pose_features`.
    shoulders: distance between the person's shoulders in each frame, in pixels.
  """
  if (
    len(frames) < _LEAST_FRAMES or min(frames[0].surface.shape[:2]) < _LEAST_SIDE or shoulders.min() < _LEAST_SHOULDERS
  ):
    return None
  mean, scale = features.mean(axis=0), features.std(axis=0) + np.float32(_LEAST_SPREAD)
  standard = (features - mean) / scale
  design = np.concatenate([np.ones((len(standard), 1)), standard], axis=1)
  maps, ridge, explained = [frame.surface for frame in frames], 0.0, 0.0
  shifts = np.zeros((len(frames), *frames[0].frame.shape[:2], 2), np.float32)
  coefficients = np.zeros((0, 2, design.shape[1]))
  for _ in range(_ROUNDS):
    aligned = [frame._replace(surface=surface) for frame, surface in zip(frames, maps)]
    flow, seen = _flow(aligned)
    weight, value = _by_cell(flow + shifts, seen, frames, shoulders)
    if not ridge:
      ridge, explained = _best_ridge(design, weight, value)
      if explained < _LEAST_EXPLAINED:
        return None
    coefficients = _ridge(design, weight, value, ridge)
    tables = (coefficients @ design.T).transpose(2, 0, 1)
    for number, frame in enumerate(frames):
      shifts[number] = shift_field(frame.surface, (tables[number] * shoulders[number]).astype(np.float32))
      maps[number] = moved_surface(frame.surface, shifts[number])
  low, high = standard.min(axis=0), standard.max(axis=0)
  beyond = _BEYOND * (high - low)
  cells = np.flatnonzero(np.abs(coefficients).any(axis=(1, 2)))
  moves, patterns = _patterns(coefficients[cells])
  if not len(cells) or np.abs(moves).max() > LARGEST:
    return None
  cloth = ClothShift(
    *(mean.astype(np.float32), scale.astype(np.float32), low - beyond, high + beyond),
    *(patterns, cells, moves, explained),
  )
  return ClothShift.from_json(cloth.to_json())  # rounded as in files


def _flow(frames: Sequence[FilmFrame]) -> tuple[Float[NdArray, "T H W 2"], Bool[NdArray, "T H W"]]:
  """Where each frame shows what the texture of all has at its surface, in pixels, and where that is known."""
  blocks = plan_blocks([0] * len(frames), 1.0)
  texture = gather(lambda number: frames[number], blocks, key_frames=0).texture()
  found = [flow_onto(texture.atlas, texture.coverage, f.frame, f.surface, f.person_mask) for f in frames]
  flows, masks = zip(*found)
  return np.stack(flows), np.stack(masks)


def _by_cell(
  flow: Float[NdArray, "T H W 2"],
  seen: Bool[NdArray, "T H W"],
  frames: Sequence[FilmFrame],
  shoulders: Float[NdArray, " T"],
) -> tuple[Float[NdArray, "T N"], Float[NdArray, "T N 2"]]:
  """How much each frame shows of each cell, at most 1, and the cell's mean flow in shoulder widths."""
  count = CHARTS * CELLS**2
  weight, value = np.zeros((len(frames), count)), np.zeros((len(frames), count, 2))
  for number, frame in enumerate(frames):
    here = seen[number] & (GROUPS[frame.surface[..., 0]] > 0)
    cells = cells_of(frame.surface)[here]
    pixels = np.bincount(cells, minlength=count)
    for axis in (0, 1):
      total = np.bincount(cells, flow[number, ..., axis][here], minlength=count)
      value[number, :, axis] = total / np.maximum(pixels, 1) / shoulders[number]
    weight[number] = np.minimum(pixels / _FULL, 1)
  return weight, value


def _ridge(
  design: Float[NdArray, "T F1"], weight: Float[NdArray, "T N"], value: Float[NdArray, "T N 2"], ridge: float
) -> Float[NdArray, "N 2 F1"]:
  """Weighted ridge regressions of each cell's shift; 0 for cells that hardly any frame shows."""
  count = design.shape[1]
  coefficients = np.zeros((weight.shape[1], 2, count))
  cells = np.flatnonzero(weight.sum(axis=0) > _LEAST_SHOWN)
  held = np.diag([_HOLD, *[ridge * (count - 1)] * (count - 1)])
  squares = np.einsum("tc,tf,tg->cfg", weight[:, cells], design, design, optimize=True) + held
  products = np.einsum("tc,tca,tf->cfa", weight[:, cells], value[:, cells], design, optimize=True)
  if len(cells):
    coefficients[cells] = np.linalg.solve(squares, products).transpose(0, 2, 1)
  return coefficients


def _best_ridge(
  design: Float[NdArray, "T F1"], weight: Float[NdArray, "T N"], value: Float[NdArray, "T N 2"]
) -> tuple[float, float]:
  """The ridge that best explains held-out stretches, and the share of their squared flow beyond a constant shift."""
  fold = np.arange(len(design)) * _FOLDS // len(design)

  def missed(columns: int, ridge: float) -> float:
    """The squared flow in held-out stretches that the first columns of the design do not explain."""
    total = 0.0
    for inside, outside in ((fold != part, fold == part) for part in range(_FOLDS)):
      found = _ridge(design[inside, :columns], weight[inside], value[inside], ridge)
      error = value[outside] - np.einsum("caf,tf->tca", found, design[outside, :columns], optimize=True)
      total += float((weight[outside, :, None] * np.square(error)).sum())
    return total

  left = {ridge: missed(design.shape[1], ridge) for ridge in _RIDGES}
  constant = missed(1, 0.0)  # by a shift that is the same in all poses
  best = min(left, key=lambda ridge: left[ridge])
  return best, max(0.0, 1 - left[best] / max(constant, 1e-9))


def _patterns(
  coefficients: Float[NdArray, "M 2 F1"],
) -> tuple[Float[NdArray, "M 2 R"], Float[NdArray, "R F1"]]:
  """The strongest patterns of the regressions: shifts of the cells in each, and their sizes by feature."""
  cells, _, features = coefficients.shape
  across, strength, along = np.linalg.svd(coefficients.reshape(cells * 2, features), full_matrices=False)
  shifts = (across * strength)[:, :RANK].reshape(cells, 2, -1)
  return shifts.astype(np.float32), along[:RANK].astype(np.float32)
