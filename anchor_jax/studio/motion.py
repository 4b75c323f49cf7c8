"""Motions: a seed determines a presenter's gestures, speech and gaze as smooth, aperiodic functions of time.

Value noise and key poses are chosen by a hash of (seed, channel, time slot). So `Performance.at(t)` is stateless, and
may be called for any t in any order. Positions of the wrists are in arm lengths, so that a motion fits every identity.
Directions are mirrored for the two arms: "outwards" is away from the middle of the body.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from anchor_jax.body.solids import Real
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray

_MASK = (1 << 64) - 1

# Gestures: wrist (outwards, up, forward; from the middle of the shoulders, in arm lengths), direction of the fingers
# and normal of the palm (outwards, up, forward), curl of thumb to little finger (0 straight, 1 closed), spread, weight.
_GESTURES = (
  ((0.20, -0.70, 0.50), (-0.75, 0.35, 0.30), (-0.25, 0.15, -1.0), (0.25, 0.35, 0.40, 0.45, 0.50), 0.10, 2.0),  # rest
  ((0.62, -0.42, 0.48), (0.45, 0.55, 0.55), (-0.35, 0.55, 0.70), (0.10, 0.12, 0.18, 0.24, 0.28), 0.55, 2.0),  # offer
  ((0.55, -0.10, 0.52), (0.10, 1.00, 0.10), (-0.05, -0.05, 1.00), (0.05, 0.05, 0.05, 0.08, 0.10), 0.75, 1.4),  # palm
  ((0.52, -0.14, 0.52), (-0.10, 1.00, 0.15), (-0.25, 0.00, 0.95), (0.75, 0.00, 0.92, 1.00, 1.00), 0.10, 1.4),  # point
  ((0.48, -0.34, 0.62), (0.55, 0.60, 0.45), (-0.40, -0.20, 0.85), (0.60, 0.02, 0.85, 0.95, 1.00), 0.10, 0.8),  # aside
  ((0.46, -0.28, 0.56), (-0.25, 0.85, 0.45), (-0.55, -0.10, 0.75), (0.50, 0.58, 0.30, 0.20, 0.12), 0.35, 1.4),  # pinch
  ((0.36, -0.44, 0.58), (-0.30, 0.75, 0.50), (-1.00, 0.05, 0.15), (0.10, 0.05, 0.05, 0.06, 0.08), 0.05, 1.2),  # edge
  ((0.58, -0.08, 0.48), (0.05, 1.00, 0.10), (-0.05, 0.00, 1.00), (0.85, 0.00, 0.00, 0.95, 1.00), 0.80, 0.8),  # two
  ((0.60, -0.12, 0.48), (0.05, 1.00, 0.10), (-0.10, 0.00, 1.00), (0.85, 0.00, 0.00, 0.02, 1.00), 0.60, 0.6),  # three
  ((0.44, -0.36, 0.58), (-0.35, 0.25, 0.80), (-1.00, 0.05, 0.15), (0.00, 1.00, 1.00, 1.00, 1.00), 0.00, 0.6),  # thumb
  ((0.42, -0.40, 0.58), (-0.30, 0.80, 0.45), (-0.45, -0.10, 0.80), (0.75, 1.00, 1.00, 1.00, 1.00), 0.00, 0.7),  # fist
  ((0.46, -0.50, 0.52), (-0.45, 0.35, 0.70), (-0.10, -0.90, 0.45), (0.10, 0.10, 0.12, 0.15, 0.18), 0.30, 1.0),  # level
  ((0.10, -0.36, 0.44), (-0.90, 0.40, 0.05), (0.05, 0.00, -1.00), (0.15, 0.10, 0.10, 0.12, 0.15), 0.20, 0.8),  # heart
  ((0.56, -0.06, 0.50), (0.00, 1.00, 0.15), (-0.15, 0.00, 1.00), (0.55, 0.72, 0.12, 0.06, 0.02), 0.70, 0.7),  # ring
  ((0.68, 0.06, 0.36), (0.40, 0.95, 0.10), (-0.25, 0.15, 0.95), (0.05, 0.05, 0.08, 0.10, 0.12), 0.70, 0.8),  # high
  (
    (0.50, 0.24, 0.40),
    (-0.15, 1.00, 0.00),
    (-0.35, 0.00, 0.90),
    (0.30, 0.20, 0.25, 0.32, 0.40),
    0.30,
    0.6,
  ),  # by the face
)
_WEIGHTS = np.cumsum([gesture[5] for gesture in _GESTURES])


@dataclass(frozen=True, slots=True)
class MotionState:
  """Pose and facial expression at one instant; index 0 of a pair is the arm, eye or brow on the picture's left.

  Attributes:
    torso, head: yaw (to the picture's right), pitch (down), roll (to the picture's right), radians.
    shift: translation of the body (right, up), meters.
    wrists: target positions (outwards, up, forward) from the middle of the shoulders, arm lengths.
    fingers: unit vectors along the fingers (outwards, up, forward).
    palms: unit normals of the palms (outwards, up, forward).
    curls: of thumb to little finger, 0 straight to 1 closed.
    spread: of the fingers, 0 together to about 1.
    elbows: lift of the elbows outwards, about 0..0.7.
    mouth: opening 0..1, width -1 (round) to 1 (wide), smile 0..1.
    blink: 0 open to 1 closed.
    gaze: (right, up), -1..1.
    brows: raise, -1..1.
  """

  torso: Float[NdArray, "3"]
  head: Float[NdArray, "3"]
  shift: Float[NdArray, "2"]
  wrists: Float[NdArray, "2 3"]
  fingers: Float[NdArray, "2 3"]
  palms: Float[NdArray, "2 3"]
  curls: Float[NdArray, "2 5"]
  spread: Float[NdArray, "2"]
  elbows: Float[NdArray, "2"]
  mouth: Float[NdArray, "3"]
  blink: float
  gaze: Float[NdArray, "2"]
  brows: Float[NdArray, "2"]


def _smooth(x: float) -> float:
  """The minimum-jerk step: 0 for x <= 0, 1 for x >= 1, with two continuous derivatives."""
  x = min(max(x, 0.0), 1.0)
  return x * x * x * (x * (6 * x - 15) + 10)


def _bump(x: float) -> float:
  """A smooth bump of height 1 at 0, and 0 outside [-1, 1]."""
  return _smooth(1 - abs(x) * abs(x)) if abs(x) < 1 else 0.0


def _frame(fingers: np.ndarray, palm: np.ndarray) -> np.ndarray:
  """Rotation with columns: direction of the fingers, normal of the palm made orthogonal to it, their cross product."""
  fingers = fingers / np.linalg.norm(fingers)
  palm = palm - fingers * (fingers @ palm)
  palm = palm / max(float(np.linalg.norm(palm)), 1e-6)
  return np.stack([fingers, palm, np.cross(fingers, palm)], axis=1)


def _turn(
  fingers: np.ndarray, palm: np.ndarray, fingers_to: np.ndarray, palm_to: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
  """Interpolates a hand's orientation along a geodesic, since linearly interpolated vectors could pass through zero."""
  start = _frame(fingers, palm)
  vector, _ = cv2.Rodrigues(start.T @ _frame(fingers_to, palm_to))
  turned = start @ cv2.Rodrigues(vector * share)[0]
  return turned[:, 0], turned[:, 1]


@dataclass(frozen=True, slots=True)
class Performance:
  """A person's movements as a function of time; see `make_motion`.

  Attributes:
    seed: of `make_motion`.
    key: of the hash behind all random choices.
    tempo: factor on the speed of gestures, about 1.
    energy: factor on the size of movements, about 1.
    talkative: fraction of the time that is speech, 0..1.
  """

  seed: int
  key: int
  tempo: float
  energy: float
  talkative: float

  def _random(self, channel: int, slot: int) -> float:
    """Uniform in [0, 1), by splitmix64 of (key, channel, slot)."""
    x = (self.key + channel * 0x9E3779B97F4A7C15 + (slot & _MASK) * 0xD1B54A32D192ED03) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) / 2.0**64

  def _noise(self, channel: int, time: float, rate: float, rough: float = 0.36) -> float:
    """Value noise in about [-1, 1], `rate` values per second, with a second octave of weight `rough`."""
    total = 0.0
    for octave, weight in ((0, 1.08 - rough), (1, rough))[: 2 if rough else 1]:
      x = time * rate * (1 + 1.13 * octave) + 37.7 * octave + self._random(channel, -7) * 50
      slot = math.floor(x)
      low, high = self._random(channel * 2 + octave, slot), self._random(channel * 2 + octave, slot + 1)
      total += weight * (2 * (low + (high - low) * _smooth(x - slot)) - 1)
    return total

  def _slot(self, channel: int, time: float, length: float) -> tuple[int, float, float]:
    """(number, seconds since its start, length) of the irregular time slot that contains `time`."""
    i = math.floor(time / length)
    starts = [(j + 0.5 * self._random(channel, j)) * length for j in (i - 1, i, i + 1, i + 2)]
    k = max(j for j in range(3) if starts[j] <= time or j == 0)
    return i - 1 + k, time - starts[k], starts[k + 1] - starts[k]

  def _gesture(self, side: int, slot: int) -> list[np.ndarray]:
    """The key pose [wrist, fingers, palm, curls, (spread, elbow)] of one arm in a slot."""
    mode = self._random(100, slot)  # same gesture for both arms, one arm at rest, or independent gestures
    pick = 110 + side
    if mode < 0.36:
      pick = 109
    resting = 0.36 <= mode < 0.74 and (self._random(101, slot) < 0.5) == (side == 0)
    choice = 0 if resting else int(np.searchsorted(_WEIGHTS, self._random(pick, slot) * _WEIGHTS[-1], side="right"))
    wrist, fingers, palm, curls, spread, _ = _GESTURES[min(choice, len(_GESTURES) - 1)]
    jitter = [2 * self._random(120 + 20 * side + n, slot) - 1 for n in range(16)]
    reach = np.array(wrist) + np.array(jitter[0:3]) * (0.10, 0.09, 0.05)
    fingers_to = np.array(fingers) + np.array(jitter[3:6]) * 0.22
    palm_to = np.array(palm) + np.array(jitter[6:9]) * 0.22
    closed = np.clip(np.array(curls) + np.array(jitter[9:14]) * 0.09, 0, 1)
    return [reach, fingers_to, palm_to, closed, np.array([max(spread + 0.2 * jitter[14], 0), 0.35 + 0.35 * jitter[15]])]

  def _arm(self, side: int, time: float) -> list[np.ndarray]:
    slot, since, length = self._slot(99, time, 1.5 / self.tempo)
    since -= 0.07 * self._random(130 + side, slot)  # so that the two hands start at slightly different times
    share = _smooth(since / (length * (0.58 + 0.24 * self._random(132, slot))))
    before, after = self._gesture(side, slot - 1), self._gesture(side, slot)
    pose = [a + (b - a) * share for a, b in zip(before, after, strict=True)]
    pose[1], pose[2] = _turn(before[1], before[2], after[1], after[2], share)
    arc = 4 * share * (1 - share)
    pose[0] = pose[0] + np.array([0.04, 0.02, 0.05]) * arc * float(np.linalg.norm(after[0] - before[0]) > 0.2)
    beat = [self._noise(200 + 10 * side + n, time, 2.6 if n == 1 else 1.3) for n in range(6)]
    pose[0] = pose[0] + np.array((0.0, 0.03, 0.08)) * side  # keeps the hands from intersecting
    pose[0] = pose[0] + np.array(beat[:3]) * (0.030, 0.045, 0.025) * self.energy
    pose[1] = pose[1] + np.array(beat[3:]) * 0.14
    pose[2] = pose[2] - pose[1] * float(pose[2] @ pose[1]) / float(pose[1] @ pose[1])
    pose[3] = np.clip(pose[3] + 0.06 * self._noise(260 + side, time, 1.5), 0, 1)
    return pose

  def _speech(self, time: float) -> tuple[float, float, float]:
    talking = _smooth((self._noise(300, time, 0.35) + 2.2 * self.talkative - 0.9) * 2.5)
    opening = max(self._noise(301, time, 6.0, 0.0) * 0.75 + 0.42, 0.0) * talking
    return opening, self._noise(302, time, 3.2, 0.0) * (0.25 + 0.75 * talking), 0.35 + 0.5 * self._noise(303, time, 0.3)

  def _blink(self, time: float) -> float:
    closed = 0.0
    slot, _, _ = self._slot(310, time, 2.9)
    for j in (slot - 1, slot, slot + 1):
      center = (j + 0.5 * self._random(310, j) + 0.25) * 2.9
      half = 0.15 if self._random(311, j) < 0.9 else 0.30
      closed = max(closed, min(1.25 * _bump((time - center) / half), 1.0))
    return closed

  def _gaze(self, time: float) -> np.ndarray:
    slot, since, _ = self._slot(320, time, 1.1)
    share = _smooth(since / 0.16)
    ends = []
    for j in (slot - 1, slot):
      away = 0.75 if self._random(321, j) < 0.35 else 0.12
      ends.append(np.array([2 * self._random(322, j) - 1, (2 * self._random(323, j) - 1) * 0.6]) * away)
    return ends[0] + (ends[1] - ends[0]) * share

  def at(self, time: Real) -> MotionState:
    """Pose and expression at `time` seconds, any real number."""
    noise, energy, time = self._noise, self.energy, float(time)
    arms = [self._arm(side, time) for side in (0, 1)]
    unit = [[arm[i] / max(float(np.linalg.norm(arm[i])), 1e-6) for arm in arms] for i in (1, 2)]
    opening, width, smile = self._speech(time)
    nod = 0.07 * noise(23, time, 1.4) + 0.05 * (opening - 0.3)
    return MotionState(
      torso=np.array([0.20 * noise(10, time, 0.22), 0.05 * noise(11, time, 0.2), 0.06 * noise(12, time, 0.25)])
      * energy,
      head=np.array([0.42 * noise(20, time, 0.33), 0.14 * noise(21, time, 0.35) + nod, 0.14 * noise(22, time, 0.3)]),
      shift=np.array([0.035 * noise(30, time, 0.2), 0.008 * noise(31, time, 0.4)]) * energy,
      wrists=np.array([arm[0] for arm in arms]),
      fingers=np.array(unit[0]),
      palms=np.array(unit[1]),
      curls=np.array([arm[3] for arm in arms]),
      spread=np.array([arm[4][0] for arm in arms]),
      elbows=np.array([arm[4][1] for arm in arms]),
      mouth=np.array([opening, width, min(max(smile, 0), 1)]),
      blink=self._blink(time),
      gaze=self._gaze(time),
      brows=np.array([0.75 * noise(40, time, 0.7) + 0.25 * noise(41 + i, time, 0.7) for i in (0, 1)]),
    )


def make_motion(seed: int) -> Performance:
  """The motion of a seed: the same on every machine, independent of the identity's seed.

  Raises:
    UserError: the seed is negative.
  """
  if seed < 0:
    raise UserError(f"a studio motion's seed is {seed}: give 0 or more")
  generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0x6D6F7665])))
  key = int(generator.integers(1 << 63))
  tempo, energy, talkative = generator.uniform((0.85, 0.8, 0.6), (1.2, 1.2, 0.95))
  return Performance(int(seed), key, float(tempo), float(energy), float(talkative))
