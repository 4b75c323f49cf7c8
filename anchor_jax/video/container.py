"""Facts from an open film file: which streams are the film, its frame rate, and the length its header claims."""

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition

from anchor_jax.core.shapes import Int, NdArray

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_IMAGE_CODECS = ("mjpeg", "png", "bmp", "gif", "tiff", "webp")  # likely a cover or preview, even without a flag
_SECONDARY = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.dependent
_REORDERED = 4  # frames that encoders usually store out of display order
_MAX_REORDERED = 64  # upper limit in any format


def film_stream(container: Any) -> Any | None:
  """Returns the video stream of an open file: the default one, else the largest; None if there is none.

  Attached pictures (cover art) do not count. Streams in an image codec rank below streams in a video codec.
  """
  moving = [
    stream
    for stream in container.streams.video
    if not stream.disposition & _STILL and stream.codec_context is not None and stream.codec_context.width
  ]
  area = lambda stream: stream.codec_context.width * stream.codec_context.height
  filmed = lambda stream: stream.codec_context.name not in _IMAGE_CODECS
  return max(moving, key=lambda stream: (filmed(stream), *_rank(stream), area(stream)), default=None)


def sound_stream(container: Any) -> Any | None:
  """Returns the audio stream of an open file: the default one, else the first; None if there is none."""
  return max(container.streams.audio, key=_rank, default=None)


def has_sound(path: str | os.PathLike) -> bool:
  """Returns whether a film has an audio stream."""
  with av.open(str(path)) as container:
    return sound_stream(container) is not None


def _rank(stream: Any) -> tuple[bool, bool]:
  return bool(stream.disposition & Disposition.default), not stream.disposition & _SECONDARY


class Claim(NamedTuple):
  """Length of a stream as its file's header states it, before any packet is read.

  Attributes:
    frames: number of shown frames; None where the header does not say.
    end: end of the last frame in seconds; None where the header does not say, or `frames` is exact.
  """

  frames: int | None = None
  end: float | None = None


def claim_of(container: Any, stream: Any) -> Claim:
  """Returns the length of a stream as the header of an open file states it; an empty claim for live recordings."""
  if "mp4" in container.format.name.split(","):
    # The index honors edit lists; a film trimmed without re-encoding still holds all its samples.
    return Claim(sum(not entry.is_discard for entry in stream.index_entries))
  clock = stream.metadata.get("DURATION", "")  # Matroska stores each stream's end in a tag, h:m:s
  if clock.count(":") == 2:
    hours, minutes, seconds = clock.split(":")
    return Claim(end=int(hours) * 3600 + int(minutes) * 60 + float(seconds))
  if stream.frames and stream.average_rate:  # AVI also counts the ticks that repeat a frame
    return Claim(stream.frames, float(stream.frames / stream.average_rate))
  return Claim()


def missing_frames(
  claim: Claim, count: int, times: Int[NdArray, " T"] | None, unit: Fraction | None, rate: float | None
) -> int:
  """Returns how many frames the header claims beyond those in the file; above 0, the file is truncated.

  A claimed end is compared with the last frame's. At a varying rate, the last frame may last as long as the longest
  one before it. At a constant rate, gaps among the last few frames count too: encoders store some out of order.

  Args:
    claim: from `claim_of`.
    count: number of frames in the file.
    times: [T] their sorted time stamps, in units of `unit` seconds; None if unknown.
    rate: frames per second, used for a film of one frame or without time stamps.
  """
  if claim.end is None:
    return max(0, (claim.frames or 0) - count)
  if times is None or unit is None or len(times) < 2 or times[-1] == times[0]:
    claimed = claim.frames if claim.frames is not None else int(claim.end * rate) if rate else 0
    return max(0, claimed - count)
  steps, rest = np.diff(times) * float(unit), claim.end - float(times[-1] * unit)
  usual = float(np.median(steps[steps > 0]))
  if (np.abs(steps[:-_REORDERED] - usual) > usual / 2).any():
    return max(0, round((rest - steps.max()) / steps.mean()))
  lost = round(float((steps[-_REORDERED:] / usual - 1).sum()))
  return max(0, round(rest / usual - 1)) + (lost if 0 < lost <= _REORDERED else 0)


def frame_rate(claim: Fraction | None, times: Int[NdArray, " T"] | None, unit: Fraction | None) -> float | None:
  """Returns the frames per second of a stream: the header's rate unless the time stamps contradict it.

  Args:
    claim: the header's rate.
    times: [T] sorted time stamps, in units of `unit` seconds.

  Returns:
    The claim if it matches the mean interval within 2 percent or one unit, or if there are too few stamps; otherwise
    the rate of the typical interval (the mean of those near the median). None if there is neither.
  """
  steps = np.diff(times) if times is not None else np.zeros(0)
  if unit is None or not len(steps) or not steps.any():
    return float(claim) if claim else None
  if claim and abs(1 / float(claim * unit) - steps.mean()) <= max(0.02 * steps.mean(), 1 / len(steps)):
    return float(claim)
  middle = np.median(steps[steps > 0])
  usual = steps[(steps > 0.5 * middle) & (steps < 1.5 * middle)]
  return float(Fraction(1 / float(usual.mean() * unit)).limit_denominator(1001))  # time stamps may be rounded


def display_order(stamps: Sequence[int | None]) -> Int[NdArray, " T"] | None:
  """Returns packet time stamps in display order, or None if some are missing or they restart.

  They restart in concatenated files. Real encoders reorder a few frames at most, which is how the two differ.
  """
  if None in stamps:
    return None
  found = np.array(stamps, np.int64)
  order = np.argsort(found, kind="stable")
  return None if (np.abs(order - np.arange(len(order))) > _MAX_REORDERED).any() else found[order]


def decodable_stamps(stamps: Sequence[int | None], first: int | None) -> Sequence[int | None]:
  """Returns packet time stamps without those before the first frame that decodes.

  A recording that starts between two key frames (broadcast TV, cameras that split long films) begins with packets that
  can't be decoded.
  """
  if first is None or None in stamps or first not in stamps:
    return stamps
  return [stamp for stamp in stamps if stamp is not None and stamp >= first]
