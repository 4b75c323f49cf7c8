"""Face crops: from five landmarks to an upright crop with its keep mask, and from the crop back into the frame.

Landmarks are continuous picture coordinates: the center of the pixel in column 0 is at x = 0.5. Order: the eye on the
picture's left, the other eye, nose, the mouth corner on the picture's left, the other corner.
"""

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray, Shaped, UInt8

# The five landmarks of an aligned FFHQ face of 512 x 512 pixels, as used by face restoration models.
TEMPLATE_512 = np.array(
  [(192.98, 239.95), (318.90, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)], np.float64
)
PLACE_STEPS = 16  # steps a pixel in the result of `crop_places`
UNBLURRED = 1.2  # a picture that shrinks by a larger factor is blurred first
_ERODE_512, _BLUR_512 = 40, 41  # pixels; see `blend_weight`


def face_template(size: int) -> Float[NdArray, "5 2"]:
  """Returns the five landmarks in a crop of `size` x `size` pixels."""
  return TEMPLATE_512 * (size / 512)


def similarity(source: Float[NdArray, "N 2"], target: Float[NdArray, "N 2"]) -> Float[NdArray, "2 3"]:
  """Returns the least-squares rotation, scale and shift (no mirroring) from `source` to `target`.

  In the plane, similarities are z -> a z + b on complex numbers, so that a and b are the solution of a linear
  regression (Umeyama 1991 is the general case).

  Returns:
    [2 3] matrix that multiplies (x, y, 1).
  """
  z, w = (np.asarray(points, np.float64) @ np.array([1, 1j]) for points in (source, target))
  centered = z - z.mean()
  a = (centered.conj() @ (w - w.mean())) / (centered.conj() @ centered).real
  b = w.mean() - a * z.mean()
  return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def face_transform(landmarks: Float[NdArray, "5 2"], size: int) -> Float[NdArray, "2 3"]:
  """Returns the similarity from a frame to its face crop of `size` x `size` pixels; landmarks must not be NaN."""
  return similarity(landmarks, face_template(size))


def _warp(
  image: Shaped[NdArray, "H W ..."],
  transform: Float[NdArray, "2 3"],
  size: tuple[int, int],
  border: int,
) -> Shaped[NdArray, "h w ..."]:
  """Warps to (width, height) `size`, after an anti-aliasing blur if the picture shrinks."""
  shrink = 1 / np.sqrt(abs(np.linalg.det(transform[:, :2])))
  if shrink > UNBLURRED:
    image = cv2.GaussianBlur(image, (0, 0), 0.5 * float(np.sqrt(shrink**2 - 1)))
  matrix = np.array(transform)
  matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5  # OpenCV's pixel centers are at integers
  return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)


def _inverse(transform: Float[NdArray, "2 3"]) -> Float[NdArray, "2 3"]:
  return cv2.invertAffineTransform(transform)


def crop_image(
  image: UInt8[NdArray, "H W 3"], transform: Float[NdArray, "2 3"], size: int, *, extend: bool = False
) -> UInt8[NdArray, "S S 3"]:
  """Returns the face crop of a picture.

  Args:
    image: the frame or its pose render.
    transform: frame to crop, from `face_transform`.
    size: height and width of the crop in pixels.
    extend: beyond the frame, mirror it (for photographs) instead of padding with black (for renders).
  """
  return _warp(image, transform, (size, size), cv2.BORDER_REFLECT_101 if extend else cv2.BORDER_CONSTANT)


def crop_places(transform: Float[NdArray, "2 3"], size: int, frame_size: tuple[int, int]) -> Int[NdArray, "S S 2"]:
  """Returns the place in the frame from which each pixel of the face crop is sampled, for cropping on the device.

  Args:
    transform, size: as for `crop_image`.
    frame_size: height and width of the frame, in pixels.

  Returns:
    x and y in sixteenths of a pixel (1 / PLACE_STEPS), 0 at the center of the first pixel. Beyond the frame they are
    mirrored, as in `crop_image` with `extend`.
  """
  x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
  back = _inverse(transform)
  places = np.stack([x, y], axis=-1) @ back[:, :2].T + back[:, 2] - 0.5
  last = np.maximum(np.array(frame_size[::-1]) - 1, 1)
  mirrored = np.abs((places + last) % (2 * last) - last)
  return np.rint(np.minimum(mirrored, np.array(frame_size[::-1]) - 1) * PLACE_STEPS).astype(np.int32)


def keep_mask(
  face_mask: UInt8[NdArray, "H W"] | UInt8[NdArray, "H W 1"], transform: Float[NdArray, "2 3"], size: int
) -> UInt8[NdArray, "S S 1"]:
  """Returns the keep mask of a crop: 0 where the head repaints (the face), 255 where the picture stays as it is."""
  face = _warp(face_mask.reshape(face_mask.shape[:2]), transform, (size, size), cv2.BORDER_CONSTANT)
  return np.where(face > 127, 0, 255).astype(np.uint8)[..., None]


def fade_kernels(size: int) -> tuple[int, Float[NdArray, " N"]]:
  """Returns the side of the square that erodes a crop's repainted region, in pixels, and the kernel that blurs it."""
  scale = size / 512
  blur = max(3, round(_BLUR_512 * scale) // 2 * 2 + 1)
  return max(1, round(_ERODE_512 * scale)), cv2.getGaussianKernel(blur, 0, cv2.CV_32F)[:, 0]


def blend_weight(keep: UInt8[NdArray, "S S 1"]) -> Float[NdArray, "S S"]:
  """Returns the repainted face's weight in a crop, 0 to 1: eroded by 40 and blurred over 41 pixels of 512."""
  side, kernel = fade_kernels(keep.shape[0])
  # the face mask may reach the crop's border, where the crop must fade out, too
  repaint = cv2.copyMakeBorder(255 - keep[..., 0], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
  eroded = cv2.erode(repaint, np.ones((side, side), np.uint8))[1:-1, 1:-1]
  return cv2.sepFilter2D(eroded.astype(np.float32) / 255, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)


def paste_face(
  frame: UInt8[NdArray, "H W 3"],
  crop: UInt8[NdArray, "S S 3"],
  transform: Float[NdArray, "2 3"],
  keep: UInt8[NdArray, "S S 1"],
) -> UInt8[NdArray, "H W 3"]:
  """Returns the frame with a repainted face crop pasted in, faded at the edge of the repainted region.

  Args:
    frame: the picture the crop was taken from.
    crop: the head's result.
    transform: frame to crop, as used for cropping.
    keep: the crop's keep mask (255 keep, 0 repaint).
  """
  size = frame.shape[1], frame.shape[0]
  back = _inverse(transform)
  weight = _warp(blend_weight(keep), back, size, cv2.BORDER_CONSTANT)[..., None]
  face = _warp(crop, back, size, cv2.BORDER_REPLICATE).astype(np.float32)
  return np.clip(np.rint(frame + weight * (face - frame)), 0, 255).astype(np.uint8)
