"""Measures the alpha of texture/matte.py near the outline of studio people with strands of hair, whose alpha is known.

Example:
  python benchmarks/matting.py --sizes=128,256,512 --record

People are drawn at 512 pixels with thin strands, before a plain wall (their own) and a busy one. The rough mask is the
landmark model's. Figures, over pixels near the true outline: mean absolute error of alpha in percent; 1000 times its
mean squared error; mean error of colors in front of black and white, in gray levels; CPU time per picture.
"""

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.evaluation.results import append_results
from anchor_jax.landmarks.model import LandmarkModel
from anchor_jax.studio import make_identity, make_motion, render
from anchor_jax.studio.drawing.background import paint_background
from anchor_jax.texture.matte import film_alpha

_SEEDS, _SIDE, _STRANDS = (1, 2, 3, 5, 7, 8), 512, 60
_NEAR = 1 / 12, 1 / 40  # of the height, outside and inside of the true outline
_WAYS = ("rough", "room-unknown", "room-known")
_UNITS = {"absolute_error": "%", "squared_error": "thousandths", "color_error": "levels", "cpu_per_frame": "ms"}


class Scene(NamedTuple):
  """A person before a wall: picture, wall and the person's colors in gray levels, true alpha, and the rough share."""

  picture: Float[NdArray, "H W 3"]
  wall: Float[NdArray, "H W 3"]
  colors: Float[NdArray, "H W 3"]
  alpha: Float[NdArray, "H W"]
  share: Float[NdArray, "H W"]


def _strands(mask: UInt8[NdArray, "S S"], rng: np.random.Generator) -> Float[NdArray, "S S"]:
  """Alpha of bent strands that grow out of the top of the outline."""
  layer = np.zeros((2 * _SIDE, 2 * _SIDE), np.uint8)
  outline = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)[:, 0]
  top = outline[:, 1].min()
  outline = outline[outline[:, 1] < top + 0.16 * _SIDE]
  middle = np.array([outline[:, 0].mean(), top + 0.12 * _SIDE])
  along = np.linspace(-0.2, 1, 12)[:, None]
  for _ in range(_STRANDS):
    root = outline[rng.integers(len(outline))].astype(float)
    away = (root - middle) / np.linalg.norm(root - middle)
    length, bend = rng.uniform(0.015, 0.05) * _SIDE, rng.normal(0, 0.6)
    points = root + away * along * length + np.array([-away[1], away[0]]) * bend * length * along**2
    cv2.polylines(layer, [np.rint(32 * points).astype(np.int32)], False, 255, 2, cv2.LINE_AA, 4)
  return 0.9 * cv2.resize(layer, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _busy_wall(rng: np.random.Generator) -> Float[NdArray, "S S 3"]:
  wall = np.zeros((_SIDE, _SIDE, 3), np.float32)
  for cells, share, way in ((4, 0.5, cv2.INTER_CUBIC), (16, 0.3, cv2.INTER_NEAREST), (64, 0.2, cv2.INTER_CUBIC)):
    colors = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
    wall += share * cv2.resize(colors, (_SIDE, _SIDE), interpolation=way)
  return np.clip(wall, 0, 255)


def _scenes() -> Iterator[tuple[str, Scene]]:
  """The kind of wall and the scene."""
  with LandmarkModel("studio people") as model:
    for seed in _SEEDS:
      rng, identity = np.random.default_rng(seed), make_identity(seed)
      drawn = render(identity, make_motion(seed), 1 + 0.7 * seed, _SIDE)
      body = cv2.GaussianBlur(drawn.person_mask.astype(np.float32) / 255, (0, 0), 0.7)
      strands = (1 - body) * _strands(drawn.person_mask, rng)
      alpha = body + strands
      inner = cv2.erode(drawn.person_mask, np.ones((3, 3))) > 0
      skin = _continued(drawn.frame, inner)
      colors = body[..., None] * skin + strands[..., None] * np.array(identity.hair, np.float32) * 204
      for kind, wall in (
        ("plain", np.asarray(paint_background(identity, _SIDE), np.float32)),
        ("busy", _busy_wall(rng)),
      ):
        picture = colors + (1 - alpha[..., None]) * wall + rng.normal(0, 2, colors.shape)
        picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        model.start_shot(picture, reset=True)
        share = model.find(picture).share
        assert share is not None
        yield kind, Scene(picture.astype(np.float32), wall, colors, alpha, share.astype(np.float32))


def _continued(frame: UInt8[NdArray, "S S 3"], known: NdArray) -> Float[NdArray, "S S 3"]:
  """The frame with the color of the nearest known pixel wherever it is not known."""
  way = cv2.DIST_LABEL_PIXEL
  labels = np.asarray(cv2.distanceTransformWithLabels((~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=way)[1], int)
  table = np.zeros((labels.max() + 1, 3), np.float32)
  table[labels[known]] = frame[known]
  return table[labels]


def _matted(way: str, scene: Scene) -> tuple[Float[NdArray, "H W"], Float[NdArray, "H W 3"]]:
  """Alpha and colors that one way finds."""
  if way == "rough":
    return scene.share / 255, scene.picture
  picture, wall, share = (np.rint(part).astype(np.uint8) for part in (scene.picture, scene.wall, scene.share))
  return film_alpha(picture, share, wall if way == "room-known" else None, np.ones(share.shape, bool))


def _figures(way: str, scene: Scene) -> tuple[float, float, float, float]:
  """The errors near the outline, and milliseconds of CPU time."""
  disc = lambda share: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(len(scene.alpha) * share) + 1,) * 2)
  inside = (scene.alpha > 0.5).astype(np.uint8)
  near = (cv2.dilate(inside, disc(_NEAR[0])) > 0) & (cv2.erode(inside, disc(_NEAR[1]), borderValue=1) == 0)
  start = time.process_time()
  alpha, own = _matted(way, scene)
  seconds = time.process_time() - start
  error = (alpha - scene.alpha)[near]
  before = lambda wall: alpha[..., None] * own - scene.colors + (scene.alpha - alpha)[..., None] * wall
  color = np.mean([np.abs(before(wall))[near].mean() for wall in (0.0, 255.0)])
  return float(100 * np.abs(error).mean()), float(1000 * (error**2).mean()), float(color), 1000 * seconds


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", default="128", help="sizes of the pictures in pixels")
  parser.add_argument("--record", action="store_true", help="append the figures to results/")
  options = parser.parse_args()
  rows: dict[str, list[tuple[float, float, float, float]]] = {}
  for kind, scene in _scenes():
    for size in map(int, options.sizes.split(",")):
      small = Scene(*(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in scene))
      for way in _WAYS:
        rows.setdefault(f"{way}-{kind}-{size}", []).append(_figures(way, small))
  figures: dict[str, tuple[float, str]] = {}
  for row, values in rows.items():
    means = [round(value, 2) for value in np.mean(values, axis=0).tolist()]
    figures |= {f"matting/{row}/{name}": (mean, unit) for mean, (name, unit) in zip(means, _UNITS.items(), strict=True)}
  for what, (value, unit) in figures.items():
    print(what, value, unit)
  if options.record:
    append_results(figures, note="12 pictures; the machine was busy")


if __name__ == "__main__":
  main()
