"""How pictures are encoded: H.264 that browsers play, and lossless streams for poses and masks."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8


class Format(NamedTuple):
  """How a video stream is encoded: encoder, pixel format, and the encoder's options, all by FFmpeg's names."""

  codec: str
  pixels: str
  options: Mapping[str, str]


H264 = Format("libx264", "yuv420p", {"preset": "medium"})
LOSSLESS = Format("libx264rgb", "rgb24", {"preset": "ultrafast", "qp": "0"})


def even(frame: UInt8[NdArray, "H W C"]) -> UInt8[NdArray, "h w C"]:
  """Returns the frame with an odd width or height padded by a repeated row or column, since yuv420p needs even ones."""
  height, width = frame.shape[:2]
  if not (height % 2 or width % 2):
    return frame
  return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def default_crf(height: int, width: int) -> int:
  """The quality of the H.264 stream of a video of this size, 0 (best) to 51.

  Small videos are looked at enlarged: at 128 pixels 18 adds 1.5 grey levels of flicker, 12 adds 1.0 for half as many
  bytes more. At 512 the compression of 18 is hard to see.
  """
  return 18 if min(height, width) >= 512 else 12


def add_stream(
  container: Any, fps: Fraction, frame: UInt8[NdArray, "H W C"], options: Mapping[str, str], format: Format = H264
) -> Any:
  """Adds a stream for frames of this size; `options` go before those of the format."""
  stream = container.add_stream(format.codec, rate=fps)
  stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], format.pixels
  stream.codec_context.time_base = 1 / fps
  if format.pixels.startswith("yuv"):
    # Players guess the colours of a stream that does not name them: ITU-R BT.601, limited range.
    context = stream.codec_context
    context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 6, 6, 6
  stream.options = {**format.options, **options}
  return stream


def picture_of(frame: UInt8[NdArray, "H W C"], number: int, fps: Fraction) -> av.VideoFrame:
  """Returns frame `number`, RGB or RGBA, with its time stamp, for the encoder."""
  picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24" if frame.shape[2] == 3 else "rgba")
  picture.pts, picture.time_base = number, 1 / fps
  return picture
