"""Pastes repainted faces into their frames in batches: the JAX version of `body/face_crop.py`, which uses OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body import face_crop
from anchor_jax.core.shapes import Array, Float, NdArray, UInt8
from anchor_jax.texture.bilinear import sample

_CUT_OF_BYTES, _CUT = 3, 4  # sigmas at which OpenCV truncates kernels for 8-bit pictures and for others


def paste_faces(
  frames: UInt8[NdArray, "B H W 3"],
  crops: UInt8[NdArray, "B S S 3"],
  transforms: Float[NdArray, "B 2 3"],
  keeps: UInt8[NdArray, "B S S 1"],
) -> UInt8[Array, "B H W 3"]:
  """Returns what `face_crop.paste_face` returns for each frame, to within one gray level.

  A frame is unchanged if its keep mask leaves nothing to repaint or its transform is not finite.

  Args:
    frames, crops, transforms, keeps: arguments of `face_crop.paste_face`, stacked.
  """
  known: NdArray = np.asarray(np.isfinite(transforms).all(axis=(1, 2)))
  placed = np.where(known[:, None, None], transforms, np.eye(2, 3))
  shrink = np.sqrt(np.abs(np.linalg.det(placed[:, :, :2])))
  sigma = np.where(shrink > face_crop.UNBLURRED, 0.5 * np.sqrt(np.maximum(shrink**2 - 1, 0)), 0)
  short, long = (np.stack([_blur(crops.shape[1], float(one), cut) for one in sigma]) for cut in (_CUT_OF_BYTES, _CUT))
  keeps = np.where(known[:, None, None, None], keeps, 255).astype(np.uint8)
  return _paste(frames, crops, placed.astype(np.float32), keeps, short, long)


def _blur(size: int, sigma: float, cut: int) -> Float[NdArray, "S S"]:
  """The matrix that blurs each column of a picture, mirrored at the border."""
  if not sigma:
    return np.eye(size, dtype=np.float32)
  side = round(2 * cut * sigma + 1) | 1
  kernel = cv2.getGaussianKernel(side, sigma, cv2.CV_32F) if cut == _CUT else _kernel_of_bytes(side, sigma)
  return _filter(size, kernel, cv2.BORDER_REFLECT_101)


def _kernel_of_bytes(side: int, sigma: float) -> Float[NdArray, "N 1"]:
  """OpenCV's kernel for 8-bit pictures, in 256ths: the response to a single bright line."""
  line = np.zeros((2 * side + 1, 1), np.uint8)
  line[side] = 255
  kernel = cv2.GaussianBlur(line, (1, side), 1, sigmaY=sigma)[side - side // 2 : side + side // 2 + 1].astype(
    np.float32
  )
  kernel[side // 2] += 256 - kernel.sum()
  return kernel / 256


def _filter(size: int, kernel: Float[NdArray, "N 1"], border: int) -> Float[NdArray, "S S"]:
  return cv2.sepFilter2D(np.eye(size, dtype=np.float32), -1, np.ones(1, np.float32), kernel, borderType=border)


@jax.jit
def _paste(
  frames: UInt8[Array, "B H W 3"],
  crops: UInt8[Array, "B S S 3"],
  transforms: Float[Array, "B 2 3"],
  keeps: UInt8[Array, "B S S 1"],
  short: Float[Array, "B S S"],
  long: Float[Array, "B S S"],
) -> UInt8[Array, "B H W 3"]:
  height, width = frames.shape[1:3]
  x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
  points = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)

  def one(frame: Array, crop: Array, transform: Array, keep: Array, short: Array, long: Array) -> Array:
    # Full precision: an accelerator's default would shift points by a pixel.
    places = jnp.einsum("hwk,ik->hwi", points, transform, precision="highest") - 0.5
    first = jnp.floor(places)
    at = first.astype(jnp.int32), places - first, 1
    weight = sample(_blurred(blend_weights(keep)[..., None], long), *at, outside=0.0)
    face = jnp.round(_blurred(crop.astype(jnp.float32), short))  # 8 bits between the steps, as in OpenCV
    face = jnp.round(sample(face, *at))
    return frame + weight * (face - frame)

  pasted = jax.vmap(one)(frames.astype(jnp.float32), crops, transforms, keeps, short, long)
  return jnp.clip(jnp.round(pasted), 0, 255).astype(jnp.uint8)


def blend_weights(keep: UInt8[Array, "S S 1"]) -> Float[Array, "S S"]:
  """Returns what `face_crop.blend_weight` does."""
  side, kernel = face_crop.fade_kernels(keep.shape[0])
  repaint = jnp.pad((255 - keep[..., 0]).astype(jnp.float32) / 255, 1)
  # Pixels beyond the padded picture are ignored, as in OpenCV.
  around = [(side // 2, side - 1 - side // 2)] * 2
  eroded = jax.lax.reduce_window(repaint, jnp.inf, jax.lax.min, (side, side), (1, 1), around)[1:-1, 1:-1]
  faded = _filter(keep.shape[0], kernel[:, None], cv2.BORDER_CONSTANT)
  return _blurred(eroded[..., None], jnp.asarray(faded))[..., 0]


def _blurred(image: Float[Array, "S S C"], matrix: Float[Array, "S S"]) -> Float[Array, "S S C"]:
  """The picture with a matrix of `_blur` applied along both axes."""
  return jnp.einsum("ij,kl,jlc->ikc", matrix, matrix, image, precision="highest")
