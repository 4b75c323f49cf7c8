"""Cuts a film's sound like its picture: only some stretches of its time stay, one after the other."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from anchor_jax.core.shapes import Float, Int, NdArray

FADE = 0.005  # seconds in which the sound fades out before a cut and in after it, so that nothing clicks


class Splice:
  """The stretches of time that stay, in samples of the sound; every cut is within one sample of its time."""

  def __init__(self, stretches: Sequence[tuple[float, float]], rate: int):
    """Takes the stretches.

    Args:
      stretches: begin and end in seconds, rising, without overlaps.
      rate: samples per second.
    """
    times = np.array(stretches, np.float64).reshape(-1, 2)
    places = np.rint(np.concatenate([[0], np.cumsum(times[:, 1] - times[:, 0])]) * rate).astype(np.int64)
    self._rate, self._fade, self._places = rate, max(1, round(FADE * rate)), places[:-1]
    self._begins = np.rint(times[:, 0] * rate).astype(np.int64)
    self._ends = self._begins + np.diff(places)

  def frames(self, frame: Any) -> Iterator[Any]:
    """Yields what stays of a frame of planar floats in the film's time, in the time of what stays."""
    first, samples = round(frame.pts * frame.time_base * self._rate), frame.to_ndarray()
    end = first + samples.shape[1]
    for number in range(int(np.searchsorted(self._ends, first, side="right")), len(self._ends)):
      begin = int(self._begins[number])
      left, right = max(first, begin), min(end, int(self._ends[number]))
      if left >= right:
        return
      part = samples[:, left - first : right - first] * self._loudness(np.arange(left, right), number)
      kept = av.AudioFrame.from_ndarray(np.ascontiguousarray(part, np.float32), frame.format.name, frame.layout.name)
      kept.sample_rate, kept.time_base = self._rate, Fraction(1, self._rate)
      kept.pts = int(self._places[number]) + left - begin
      yield kept

  def _loudness(self, samples: Int[NdArray, " N"], number: int) -> Float[NdArray, " N"]:
    """0 to 1 near the cuts of a stretch; the beginning of the film is no cut."""
    begin, end = self._begins[number], self._ends[number]
    rising = np.ones(len(samples)) if begin == 0 else (samples - begin + 0.5) / self._fade
    return np.clip(np.minimum(rising, (end - samples - 0.5) / self._fade), 0, 1)
