"""What a film file says of its length and its rate: time stamps, and what its header claims beyond them."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from av.stream import Disposition

from anchor_jax.core.shapes import Int, NdArray

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PICTURES = ("mjpeg", "png", "bmp", "gif", "tiff", "webp")  # of covers and previews that no flag marks
_BESIDE = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.dependent
_OUT_OF_TURN = 4  # frames that wait for one which is stored before and shown after them
_MOST_OUT_OF_TURN = 64  # that may, in any format


def film_stream(container: Any) -> Any | None:
  """Returns the moving picture of an open file: of several the default one, then the largest; None where there is none.

  Pictures that are attached (the cover of a song) are none; those in a picture's format beside a film's are taken last.
  """
  moving = [
    stream
    for stream in container.streams.video
    if not stream.disposition & _STILL and stream.codec_context is not None and stream.codec_context.width
  ]
  area = lambda stream: stream.codec_context.width * stream.codec_context.height
  filmed = lambda stream: stream.codec_context.name not in _PICTURES
  return max(moving, key=lambda stream: (filmed(stream), *_rank(stream), area(stream)), default=None)


def sound_stream(container: Any) -> Any | None:
  """Returns the sound of an open file: of several the default one, then the first; None where there is none."""
  return max(container.streams.audio, key=_rank, default=None)


def _rank(stream: Any) -> tuple[bool, bool]:
  return bool(stream.disposition & Disposition.default), not stream.disposition & _BESIDE


class Claim(NamedTuple):
  """How long a stream is by its file's header, read before its packets are.

  Attributes:
    frames: the number of frames that are shown; None where the header does not say.
    end: when the last one ends, in seconds; None where the header does not say, or `frames` is exact.
  """

  frames: int | None = None
  end: float | None = None


def claim_of(container: Any, stream: Any) -> Claim:
  """Returns what the header of an open file claims of a stream's length; nothing of a live recording's."""
  if "mp4" in container.format.name.split(","):
    # The index, in which edit lists are worked in: a film that was trimmed without encoding keeps all its samples.
    return Claim(sum(not entry.is_discard for entry in stream.index_entries))
  clock = stream.metadata.get("DURATION", "")  # Matroska keeps each stream's end in a tag, h:m:s
  if clock.count(":") == 2:
    hours, minutes, seconds = clock.split(":")
    return Claim(end=int(hours) * 3600 + int(minutes) * 60 + float(seconds))
  if stream.frames and stream.average_rate:  # of AVI, which counts the ticks in which no new frame is shown too
    return Claim(stream.frames, float(stream.frames / stream.average_rate))
  return Claim()


def missing_frames(
  claim: Claim, count: int, times: Int[NdArray, " T"] | None, unit: Fraction | None, rate: float | None
) -> int:
  """Returns how many frames a header claims beyond those that are there: the end of the file is cut off.

  A claimed end is compared with the last frame's. At a varying rate that may be shown for as long as any before it; at
  a constant one, frames that are missing among the last few are counted too, since encoders store some out of turn.

  Args:
    claim: of `claim_of`.
    count: number of frames that are there.
    times: [T] their time stamps in order, in units of `unit` seconds; None where there are none.
    rate: frames per second, for a film of one frame, or without stamps.
  """
  if claim.end is None:
    return max(0, (claim.frames or 0) - count)
  if times is None or unit is None or len(times) < 2 or times[-1] == times[0]:
    claimed = claim.frames if claim.frames is not None else int(claim.end * rate) if rate else 0
    return max(0, claimed - count)
  steps, rest = np.diff(times) * float(unit), claim.end - float(times[-1] * unit)
  usual = float(np.median(steps[steps > 0]))
  if (np.abs(steps[:-_OUT_OF_TURN] - usual) > usual / 2).any():
    return max(0, round((rest - steps.max()) / steps.mean()))
  lost = round(float((steps[-_OUT_OF_TURN:] / usual - 1).sum()))
  return max(0, round(rest / usual - 1)) + (lost if 0 < lost <= _OUT_OF_TURN else 0)


def frame_rate(claim: Fraction | None, times: Int[NdArray, " T"] | None, unit: Fraction | None) -> float | None:
  """Returns the frames per second of a stream: what its header claims, unless the time stamps contradict it.

  Args:
    claim: of the header.
    times: [T] time stamps in order, in units of `unit` seconds.

  Returns:
    The claim where it agrees with the stamps' mean distance up to 2 percent or one unit; else the rate of the usual
    distance, which is the mean of those near the median. The claim where there are too few stamps; None if neither.
  """
  steps = np.diff(times) if times is not None else np.zeros(0)
  if unit is None or not len(steps) or not steps.any():
    return float(claim) if claim else None
  if claim and abs(1 / float(claim * unit) - steps.mean()) <= max(0.02 * steps.mean(), 1 / len(steps)):
    return float(claim)
  middle = np.median(steps[steps > 0])
  usual = steps[(steps > 0.5 * middle) & (steps < 1.5 * middle)]
  return float(Fraction(1 / float(usual.mean() * unit)).limit_denominator(1001))  # stamps may be rounded


def in_order(stamps: Sequence[int | None]) -> Int[NdArray, " T"] | None:
  """Returns the time stamps of packets in the order in which their frames are shown; None where they have no order.

  Some have none, or they begin anew (files that were put one behind the other): a frame waits for a few others at most.
  """
  if None in stamps:
    return None
  found = np.array(stamps, np.int64)
  order = np.argsort(found, kind="stable")
  return None if (np.abs(order - np.arange(len(order))) > _MOST_OUT_OF_TURN).any() else found[order]


def shown_stamps(stamps: Sequence[int | None], first: int | None) -> Sequence[int | None]:
  """Returns the stamps of a stream's packets without those before its first decoded frame's.

  A recording that begins between two key frames (digital television, cameras that divide long films) has packets that
  nothing can be made of.
  """
  if first is None or None in stamps or first not in stamps:
    return stamps
  return [stamp for stamp in stamps if stamp is not None and stamp >= first]
