"""Who and what a live camera shows: causal weights of arms, and of a person who leaves; see landmarks/shown.py."""

from typing import NamedTuple

import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.landmarks.absence import REST
from anchor_jax.landmarks.filling import SHORT_GAP
from anchor_jax.landmarks.shown import ARMS, BLINK, FADE, ease

_NEVER = -np.inf


class Presence(NamedTuple):
  """What is remembered of the pictures so far.

  Attributes:
    time: of the latest picture, in seconds.
    since: [2 2] for the left and right elbow and wrist: since when it is shown, gaps of up to 0.4 s included.
    last: [2 2] when it was last shown.
    share: [2 2] how far it comes from the pictures, 0 to 1; the rest is the rest pose.
    person: when the person was last found.
    absence: how far the person rests because nobody is found, 0 to 1.
  """

  time: float
  since: Float[NdArray, "2 2"]
  last: Float[NdArray, "2 2"]
  share: Float[NdArray, "2 2"]
  person: float
  absence: float

  def after(self, shown: Bool[NdArray, " 33"], found: bool, time: float) -> "Presence":
    """Returns what is remembered after a picture.

    Args:
      shown: which body points it shows; see `shown.shown_joints`.
      found: whether it shows the person.
      time: of the picture, in seconds.
    """
    now, passed = _arms(shown), max(time - self.time, 0.0)
    gap = max(SHORT_GAP, 1.5 * passed)  # one picture may always be missed, however slowly they come
    since = np.where(now & (time - self.last > gap), time, self.since)
    last = np.where(now, time, self.last)
    counts = (time - last <= gap) & (last - since >= BLINK)
    share = np.clip(self.share + np.where(counts, passed, -passed) / FADE, 0, 1)
    person = time if found else self.person
    away = time - person > gap
    absence = float(np.clip(self.absence + (passed / REST if away else -passed / FADE), 0, 1))
    return Presence(time, since, last, share, person, absence)

  @property
  def resting(self) -> float:
    """How far the person rests because nobody is found, 0 to 1, with a smooth start and end."""
    return float(ease(np.array([self.absence]))[0])

  def weights(self) -> Float[NdArray, " 33"]:
    """Returns how far each body point comes from the pictures (`Track.shown`)."""
    weights = np.ones(33, np.float32)
    share = ease(self.share) * (1 - self.resting)
    for (_, elbow, wrist, knuckles), (of_elbow, of_wrist) in zip(ARMS, share, strict=True):
      weights[elbow], weights[[wrist, *knuckles]] = max(of_elbow, of_wrist), of_wrist
    return weights


def starting(shown: Bool[NdArray, " 33"], time: float) -> Presence:
  """Returns what is remembered at the start of a shot: an arm is shown or at rest, and nothing fades."""
  now = _arms(shown)
  times = np.where(now, time, _NEVER)
  return Presence(time, times - BLINK, times, now.astype(np.float64), time, 0.0)


def _arms(shown: Bool[NdArray, " 33"]) -> Bool[NdArray, "2 2"]:
  """Whether elbow and wrist of the left and the right arm are shown."""
  return np.array([[shown[elbow], shown[wrist]] for _, elbow, wrist, _ in ARMS])
