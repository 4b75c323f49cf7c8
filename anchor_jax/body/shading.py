"""Shading of rasterized surfaces: the pose render's material and light, ambient occlusion, anti-aliasing."""

import cv2
import numpy as np

from anchor_jax.body.rasterize import Surface
from anchor_jax.body.solids import Real
from anchor_jax.core.shapes import Float, NdArray, Shaped, UInt8

POSE_COLOR = (0.80, 0.78, 0.90)  # the light lilac of body-mesh renders


def occlusion(surface: Surface, radius: Real) -> Float[NdArray, "h w"]:
  """Returns a cheap ambient occlusion: how much of each point's surroundings lies in front of it, 0 (open) to 1.

  Args:
    surface: the visible surface.
    radius: reach, output pixels.
  """
  factor = surface.supersample
  mask = surface.mask.astype(np.float32)
  depth = np.where(surface.mask, surface.depth, 0).astype(np.float32)
  small = (max(depth.shape[1] // 2, 1), max(depth.shape[0] // 2, 1))
  mask_small = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
  depth_small = cv2.resize(depth, small, interpolation=cv2.INTER_AREA)
  total = np.zeros_like(depth_small)
  center = depth_small / np.maximum(mask_small, 1e-3)
  for share in (1.0, 0.4):
    side = max(int(radius * share * factor / 2) * 2 + 1, 3)
    weight = cv2.blur(mask_small, (side, side))
    mean = cv2.blur(depth_small, (side, side)) / np.maximum(weight, 1e-3)
    rise = np.maximum(mean - center, 0) / np.float32(radius * share)
    total += weight * rise / (rise + np.float32(0.7))
  total = cv2.blur(total * np.float32(0.5), (3, 3))
  return cv2.resize(total, (depth.shape[1], depth.shape[0]), interpolation=cv2.INTER_LINEAR)


def shade_pose(
  surface: Surface,
  normal: Float[NdArray, "3 h w"] | None = None,
  shade: Float[NdArray, "h w"] | None = None,
  unit: Real | None = None,
) -> UInt8[NdArray, "h w 3"]:
  """Returns the pose render: one light lilac material on black, lit from the upper left, with ambient occlusion.

  Args:
    surface: the visible surface; the result has its supersampled size.
    normal: replaces the surface's normals (facial relief).
    shade: multiplies the light, 0 to 1 (the inside of an open mouth).
    unit: reach of the ambient occlusion in output pixels; default 1/32 of the picture's height.
  """
  nx, ny, nz = surface.normal if normal is None else normal
  reach = surface.depth.shape[0] / surface.supersample / 32 if unit is None else unit
  key = np.maximum(nx * np.float32(-0.45) + ny * np.float32(-0.55) + nz * np.float32(0.70), 0)
  light = np.float32(0.16) + np.float32(0.62) * key + np.float32(0.22) * nz
  light += np.maximum(nx * np.float32(0.8) + nz * np.float32(0.3), 0) * np.float32(0.12)
  half = nx * np.float32(-0.24) + ny * np.float32(-0.30) + nz * np.float32(0.92)
  half *= half
  half *= half
  half *= half
  half *= half
  light += half * np.float32(0.10)
  light *= 1 - np.float32(0.62) * occlusion(surface, reach)
  if shade is not None:
    light *= shade
  light *= surface.mask
  picture = light[..., None] * (np.float32(255) * np.asarray(POSE_COLOR, np.float32))
  return np.clip(picture, 0, 255).astype(np.uint8)


def downsample(picture: Shaped[NdArray, "h w ..."], supersample: int) -> Shaped[NdArray, "H W ..."]:
  """Returns the picture at output size: the mean over each pixel's sub-pixels, which removes aliasing."""
  if supersample == 1:
    return picture
  size = (picture.shape[1] // supersample, picture.shape[0] // supersample)
  return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
