"""The light model: soft key light with cast shadows, cool fill light, rim, sky and ground, at arrays of points."""

import cv2
import numpy as np

from anchor_jax.body.rasterize import Surface
from anchor_jax.body.solids import Real
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.studio.identity import Identity


def key_direction(identity: Identity) -> Float[NdArray, "3"]:
  """Unit vector towards the key light, picture coordinates (y down)."""
  vector = np.array([0.55 * identity.key_side, -0.50, 0.72])
  return (vector / np.linalg.norm(vector)).astype(np.float32)


def cast_shadow(surface: Surface, direction: Float[NdArray, "3"], unit: Real) -> Float[NdArray, "h w"]:
  """Fraction of the key light that is blocked at each sub-pixel, 0..1, by marching the depth buffer towards the light.

  Args:
    surface: the drawn solids; [h w] is its supersampled size.
    direction: from `key_direction`.
    unit: pixels per meter.
  """
  factor = surface.supersample
  depth = surface.depth[factor // 2 :: factor, factor // 2 :: factor]
  height, width = depth.shape
  blocked = np.zeros((height, width), np.float32)
  for step in (0.012, 0.025, 0.042, 0.065, 0.095, 0.13, 0.17):
    length = step * unit
    dx, dy = round(float(direction[0]) * length), round(float(direction[1]) * length)
    if not dx and not dy:
      continue
    point = (slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0)))
    occluder = (slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
    above = depth[occluder] - depth[point] - np.float32(direction[2] * length)
    hit = np.clip(above / np.float32(0.02 * unit), 0, 1) * (above < np.float32(0.28 * unit))
    np.maximum(blocked[point], hit, out=blocked[point])
  side = max(int(0.034 * unit) | 1, 3)
  blocked = cv2.blur(blocked, (side, side))
  return cv2.resize(blocked, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)


def shade(
  identity: Identity,
  normal: NdArray,
  color: NdArray,
  open_share: NdArray,
  lit: NdArray,
  soft: NdArray,
  gloss: NdArray,
  sharp: NdArray,
) -> Float[NdArray, "3 n"]:
  """Reflected light at n points, RGB, nominally 0..1; highlights may exceed 1.

  Args:
    identity: side and warmth of the key light.
    normal: [3, n] unit normals, picture coordinates.
    color: [3, n] RGB reflectance, 0..1.
    open_share: [n] fraction of the ambient light that is not occluded, 0..1.
    lit: [n] fraction of the key light that is not blocked, 0..1.
    soft: [n] strength of wrapped diffuse light, as from subsurface scattering: 1 for skin, 0 for cloth.
    gloss: [n] strength of the highlights.
    sharp: [n] sharpness of the highlights, 0 broad to 1 narrow.
  """
  nx, ny, nz = normal
  key = key_direction(identity)
  facing = nx * key[0] + ny * key[1] + nz * key[2]
  fill = np.maximum(
    nx * np.float32(-0.6 * np.sign(identity.key_side)) + ny * np.float32(-0.1) + nz * np.float32(0.65), 0
  )
  sky = np.float32(0.5) - np.float32(0.5) * ny
  warm = np.float32(0.04 * identity.warmth)
  key_color = (np.float32(0.80) + warm, np.float32(0.77), np.float32(0.73) - warm)
  fill_color = (0.17, 0.19, 0.22)
  sky_color, ground_color = (0.25, 0.26, 0.28), (0.20, 0.17, 0.155)
  edge = np.float32(1) - np.maximum(nz, 0)
  rim = (
    edge
    * edge
    * edge
    * np.maximum(nx * np.float32(-0.8 * np.sign(identity.key_side)) - ny * np.float32(0.45) + np.float32(0.1), 0)
  )
  half = key + np.array([0, 0, 1], np.float32)
  half /= np.float32(np.sqrt(half @ half))
  mirror = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 0)
  power2 = mirror * mirror
  power4 = power2 * power2
  power16 = power4 * power4
  power16 *= power16
  broad, narrow = power16, power16 * power16 * power16
  spark = (broad * (1 - sharp) * np.float32(0.5) + narrow * sharp) * gloss * lit * np.float32(0.6)
  spark += rim * np.float32(0.40) * open_share
  out = np.empty_like(color)
  for i, creep in enumerate((0.42, 0.20, 0.14)):
    wrap = soft * np.float32(creep) + np.float32(0.10)
    diffuse = np.maximum((facing + wrap) / (1 + wrap), 0)
    blocked = lit if i else lit + (1 - lit) * soft * np.float32(0.18)
    light = diffuse * blocked * key_color[i]
    light += (
      fill * np.float32(fill_color[i]) + sky * np.float32(sky_color[i]) + (1 - sky) * np.float32(ground_color[i])
    ) * open_share
    out[i] = color[i] * light + spark
  return out
