"""The poses of a person while she is filmed: each picture's from it and those before alone, as soon as it came.

`tracks.mend` looks both ways in time, over a whole film. Here what is missing is held, and points are smoothed by an
exponential mean that is the shorter the faster they move (the one-euro filter; Casiez, Roussel and Vogel 2012). What
does not change over a film (the square around the person, her measures) is that of the first seconds.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.films.survey import CutWatch
from anchor_jax.landmarks.framing import Square, centre_of, square_around
from anchor_jax.landmarks.measures import BodyMeasures, measure
from anchor_jax.landmarks.mediapipe import Found
from anchor_jax.landmarks.retarget import retarget
from anchor_jax.landmarks.tracks import (
  BRISK,
  FAST,
  NOSE,
  SHORT_GAP,
  SHOULDERS,
  SLOW,
  WRISTS,
  Track,
  five_landmarks,
  forearm_turn,
  mend,
  plausible_hand,
  relaxed_hand,
  rotate,
)
from anchor_jax.motion.frames import MotionFrame
from anchor_jax.video.camera import Picture

MEASURED = 3.0  # seconds in which she is seen, before any pose is given
_FADE = 0.3  # seconds in which a hand that is missing for long turns into a relaxed one
_MOMENT = 1e-3  # seconds
_ABSENT = 5.0  # seconds without anybody, after which the user is told


@runtime_checkable
class Finder(Protocol):
  """What finds a person in pictures: `landmarks.LandmarkModel`, or a stand-in."""

  triangles: Int[NdArray, "K 3"]

  def begin(self, frame: UInt8[NdArray, "H W 3"], anew: bool = False) -> None:
    """Lets it find its way into the first picture."""

  def find(self, frame: UInt8[NdArray, "H W 3"]) -> Found:
    """Finds a person in the next picture."""
    ...


class Seen(NamedTuple):
  """A person in a picture.

  Attributes:
    number, time: the picture's, of `camera.Picture`.
    driver: who it is.
    track: her points, a track of one frame without gaps.
    took: seconds that finding them took.
  """

  number: int
  time: float
  driver: "Driver"
  track: Track
  took: float


class Smoothed(NamedTuple):
  """Points that are smoothed as they come.

  Attributes:
    value: the smoothed points.
    velocity: in pixels a second.
    last: the points that came last, as they came, at `time` in seconds.
    time: see `last`.
  """

  value: Float[NdArray, "N 3"]
  velocity: Float[NdArray, "N 3"]
  last: Float[NdArray, "N 3"]
  time: float


class Followed(NamedTuple):
  """What is known of a person until now.

  Attributes:
    body, face: smoothed.
    face_from_nose: the face's points as they were last seen, from the nose of the body.
    hands: of each side, in the frame of the forearm; their times are when they were last seen.
  """

  body: Smoothed
  face: Smoothed
  face_from_nose: Float[NdArray, "N 3"]
  hands: tuple[Smoothed, Smoothed]


@dataclasses.dataclass(frozen=True)
class Driver:
  """What the first seconds tell of who is filmed.

  Attributes:
    track: those seconds, mended.
    square: the crop of the pictures.
    measures: of her body in it.
    palms: of her left and right hand, wrist to middle knuckle, in pixels.
    hers: of the person whom the motion is mapped onto; None leaves it as it is.
    renderer: of the poses.
  """

  track: Track
  square: Square
  measures: BodyMeasures
  palms: tuple[float, float]
  hers: BodyMeasures | None
  renderer: PoseRenderer


def watch(
  take: Callable[[], Picture | None],
  finder: Finder,
  *,
  size: int,
  measures: BodyMeasures | None,
  mapped: bool,
  clock: Callable[[], float],
  tell: Callable[[str], object] = print,
  seconds: float = MEASURED,
) -> Iterator[Seen]:
  """Yields who is seen in pictures while they come, until there are no more; those of the first seconds measure.

  Args:
    take: waits for the next picture and returns it, of `camera.Newest`; None where there is none any more.
    finder: finds the landmarks.
    size: height and width of the poses in pixels.
    measures, mapped: of the person who is to make the motion, see `video_motion.read_video_motion`.
    clock: seconds, also of the pictures.
    tell: takes lines for the user.
    seconds: in which she must be seen first, with her face.

  Raises:
    UserError: the pictures ended before.
  """
  tell(f"measuring who is filmed for {seconds:g} s: face the camera, with both hands in the picture")
  seen: list[tuple[float, Found]] = []
  first, size_of = None, (0, 0)
  while not seen or seen[-1][0] - seen[0][0] < seconds:
    picture = take()
    if picture is None:
      raise UserError(
        f"the pictures ended before somebody was seen for {seconds:g} s with her face: let the camera see her head and"
        " hands, in better light"
      )
    if first is None:
      finder.begin(picture.image)
      first, size_of = picture.time, (picture.image.shape[1], picture.image.shape[0])
    found = finder.find(picture.image)
    if np.isfinite(found.body[0, 0]) and np.isfinite(found.face[0, 0]):
      seen.append((picture.time, found))
    elif first is not None and not seen and picture.time - first > _ABSENT:
      tell("nobody is seen: the camera must see a head and the upper body, in good light")
      first = float("inf")
  driver, followed = meet(seen, size_of, finder.triangles, size=size, measures=measures, mapped=mapped)
  tell("following")
  cuts, anew = CutWatch(), False
  while (picture := take()) is not None:
    begun = clock()
    if cuts.begins_shot(picture.image):
      finder.begin(picture.image, anew=True)
      anew = True
    found = finder.find(picture.image)
    if anew and np.isfinite(found.body[0, 0]):
      followed, anew = met_again(followed, found, picture.time, driver.track.shoulder_width), False
    followed, track = follow(driver, followed, found, picture.time)
    yield Seen(picture.number, picture.time, driver, track, clock() - begun)


def meet(
  seen: list[tuple[float, Found]],
  size_of: tuple[int, int],
  triangles: Int[NdArray, "K 3"],
  *,
  size: int,
  measures: BodyMeasures | None,
  mapped: bool,
) -> tuple[Driver, Followed]:
  """Returns who is filmed and what is known of her at the end of the first seconds.

  Args:
    seen: (time in seconds, what was found) of pictures that show her with her face.
    size_of: width and height of the pictures.
    triangles: of the face.
    size, measures, mapped: see `watch`.
  """
  body, face, hands = (np.stack(points) for points in zip(*(found[:3] for _, found in seen)))
  fps = (len(seen) - 1) / max(seen[-1][0] - seen[0][0], 1e-3) if len(seen) > 1 else 1.0
  track = mend(Track(*size_of, fps, body, face, hands, triangles, (), np.ones(len(seen), bool)))
  square = square_around(*size_of, centre_of(track.body[:, SHOULDERS, :2], *size_of), size)
  driver = measure(track, square)
  fitted = retarget(track, square, driver, measures) if mapped and measures is not None else None
  if fitted is not None:
    renderer = PoseRenderer(*fitted, measures)
  else:
    own = driver if measures is None else dataclasses.replace(driver, widths=measures.widths)
    renderer = PoseRenderer(track, square, own)
  left, right = (
    float(np.median(np.linalg.norm(track.hands[:, side, 9] - track.hands[:, side, 0], axis=-1))) for side in (0, 1)
  )
  time, last = seen[-1][0], track.part(len(track) - 1, len(track))
  begun = lambda points: Smoothed(points, np.zeros_like(points), points, time)
  forearms = [_local(last.hands[:, side], last.body, side)[0] for side in (0, 1)]
  nose = last.body[0, NOSE]
  followed = Followed(
    begun(last.body[0]), begun(last.face[0]), last.face[0] - nose, (begun(forearms[0]), begun(forearms[1]))
  )
  return Driver(track, square, driver, (left, right), None if fitted is None else measures, renderer), followed


def met_again(followed: Followed, found: Found, time: float, unit: float) -> Followed:
  """Returns what is known of her when a new shot shows her: nothing is smoothed across the cut.

  Args:
    followed: of the picture before.
    found: in this picture, her body at least; a face or a hand that is not found keeps its shape.
    time: of this picture, in seconds.
    unit: a shoulder's width in pixels.
  """
  begun = lambda points: Smoothed(points, np.zeros_like(points), points, time - _MOMENT)
  body, nose = found.body[None], found.body[NOSE]
  from_nose = found.face - nose if np.isfinite(found.face[0, 0]) else followed.face_from_nose
  hands = []
  for side in (0, 1):
    wrist = body[:, WRISTS[side]]
    points = found.hands[None, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)
    known = plausible_hand(points, wrist, unit)[0]
    hands.append(begun(_local(points, body, side)[0]) if known else followed.hands[side])
  return Followed(begun(found.body), begun(from_nose + nose), from_nose, (hands[0], hands[1]))


def follow(driver: Driver, followed: Followed, found: Found, time: float) -> tuple[Followed, Track]:
  """Returns what is known of her after a picture, and her points in it as a track of one frame without gaps.

  A body that is not found stays where it was. A face that is not found keeps its shape and goes along with the nose, a
  hand with the forearm; after 0.4 s it turns into a relaxed one.

  Args:
    driver: of `meet`.
    followed: of the picture before.
    found: in this picture.
    time: of this picture, in seconds.
  """
  unit = driver.track.shoulder_width
  known = bool(np.isfinite(found.body[0, 0]))
  state = smooth(followed.body, found.body if known else followed.body.last, time, unit)
  body, nose = state.value[None], state.value[NOSE]
  from_nose = found.face - nose if np.isfinite(found.face[0, 0]) else followed.face_from_nose
  face = smooth(followed.face, from_nose + nose, time, unit)
  hands, shown = [], []
  for side in (0, 1):
    wrist, old = body[:, WRISTS[side]], followed.hands[side]
    points = found.hands[None, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)  # its depth starts at its wrist
    relaxed = _local(relaxed_hand(body, side, driver.palms[side]), body, side)[0]
    if plausible_hand(points, wrist, unit)[0]:
      hand = smooth(old, _local(points, body, side)[0], time, unit)
      value = hand.value
    else:
      hand = old
      faded = float(np.clip((time - old.time - SHORT_GAP) / _FADE, 0, 1))
      value = old.value + faded * (relaxed - old.value)
    hands.append(hand)
    shown.append(rotate(value[None], forearm_turn(body, side)) + wrist[:, None])
  now = dataclasses.replace(
    driver.track,
    body=body.astype(np.float32),
    face=face.value[None].astype(np.float32),
    hands=np.stack(shown, axis=1).astype(np.float32),
    has_face=np.ones(1, bool),
    has_body=None,
    has_hands=None,
  )
  return Followed(state, face, from_nose, (hands[0], hands[1])), now


def smooth(before: Smoothed, points: Float[NdArray, "N 3"], time: float, unit: float) -> Smoothed:
  """Returns the points at `time` (seconds), smoothed; `unit` is a shoulder's width in pixels, the measure of speed."""
  passed = time - before.time
  if passed <= 0:
    return before
  velocity = before.velocity + passed / (SLOW + passed) * ((points - before.last) / passed - before.velocity)
  speed = np.linalg.norm(velocity[:, :2], axis=-1, keepdims=True) / unit
  span = SLOW + np.clip(speed / BRISK, 0, 1) * (FAST - SLOW)
  value = before.value + passed / (span + passed) * (points - before.value)
  return Smoothed(value.astype(np.float32), velocity.astype(np.float32), points.astype(np.float32), time)


def render(driver: Driver, track: Track) -> MotionFrame:
  """Returns the pose of a track of one frame, mapped onto the other person where the driver is."""
  square = driver.square
  if driver.hers is not None:
    fitted = retarget(track, square, driver.measures, driver.hers)
    assert fitted is not None, "the measures are those with which it was mapped before"
    track, square = fitted
  made = driver.renderer.of(track).render(0)
  landmarks = square.points(five_landmarks(track.face))[0]
  return MotionFrame(np.ascontiguousarray(made.pose), made.face_mask[..., None], landmarks, made.surface)


def _local(points: Float[NdArray, "T 21 3"], body: Float[NdArray, "T 33 3"], side: int) -> Float[NdArray, "T 21 3"]:
  """A hand's points from the wrist, in the frame of the forearm."""
  return rotate(points - body[:, WRISTS[side], None], -forearm_turn(body, side)).astype(np.float32)
