"""Causal tracking for live video: the poses of a person while they are filmed, from past and current pictures only.

`filling.fill_and_smooth` looks both ways in time, over a complete film. Here missing points are held, and points are
smoothed with an exponential mean whose time constant shrinks as they move faster (the one-euro filter; Casiez, Roussel
and Vogel 2012). The crop rectangle and the body measures come from the first seconds and then stay fixed.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8
from anchor_jax.films.survey import CutWatch
from anchor_jax.landmarks.absence import calmest_frame
from anchor_jax.landmarks.extents import track_extents
from anchor_jax.landmarks.filling import (
  BRISK,
  FAST,
  HEAD_TO_SHOULDERS,
  SHORT_GAP,
  SLOW,
  face_height,
  fill_and_smooth,
  under_head,
)
from anchor_jax.landmarks.framing import CropRect, center_of, frame_person
from anchor_jax.landmarks.hands import forearm_turn, plausible_hand, relaxed_hand, rotate, without_doubles
from anchor_jax.landmarks.networks.holistic import Detection
from anchor_jax.landmarks.proportions.alignment import align
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.retarget import retarget
from anchor_jax.landmarks.shown import ARMS, faint_shoulders, shown_joints
from anchor_jax.landmarks.tracks import EARS, NOSE, SHOULDERS, WRISTS, Track, five_landmarks
from anchor_jax.motion.frames import MotionFrame
from anchor_jax.motion.presence import Presence, starting
from anchor_jax.video.camera import Picture

MEASURED = 3.0  # seconds for which the person must be seen before the first pose
_FADE = 0.3  # seconds over which a hand that stays missing turns into a relaxed one
_MOMENT = 1e-3  # seconds
_ABSENT = 5.0  # seconds without a person before a warning is reported


@runtime_checkable
class LandmarkFinder(Protocol):
  """Finds a person in pictures: `landmarks.model.LandmarkModel`, or a stand-in."""

  triangles: Int[NdArray, "K 3"]

  def start_shot(self, frame: UInt8[NdArray, "H W 3"], reset: bool = False) -> None:
    """Settles on the first picture of a shot; `reset` forgets the shot before."""

  def find(self, frame: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds a person in the next picture."""
    ...


class Smoothed(NamedTuple):
  """State of the one-euro filter for a set of points.

  Attributes:
    value: the smoothed points.
    velocity: pixels a second.
    last: the latest points before smoothing.
    time: when `last` came, in seconds.
  """

  value: Float[NdArray, "N 3"]
  velocity: Float[NdArray, "N 3"]
  last: Float[NdArray, "N 3"]
  time: float


class TrackState(NamedTuple):
  """What causal tracking remembers of a person between pictures.

  Attributes:
    body, face: smoothed.
    face_from_nose: the latest face points that were found, relative to the nose of the body.
    hands: left and right, in the frame of the forearm; their times are those of the latest detection.
    ears: the place between the ears, which shoulders below the picture follow slowly.
    presence: what the pictures show.
  """

  body: Smoothed
  face: Smoothed
  face_from_nose: Float[NdArray, "N 3"]
  hands: tuple[Smoothed, Smoothed]
  ears: Float[NdArray, "3"]
  presence: Presence


@dataclasses.dataclass(frozen=True)
class Driver:
  """The filmed person, as measured over the first seconds.

  Attributes:
    track: those seconds, filled and smoothed.
    crop: the crop rectangle of the pictures.
    measures: the person's body measures in that crop.
    palms: length of the left and the right palm, wrist to middle knuckle, in pixels.
    target: measures of the person whom the motion is retargeted to; None leaves the motion as it is.
    renderer: renders the poses.
    calm: number of the frame of the track in which the person rests.
  """

  track: Track
  crop: CropRect
  measures: BodyMeasures
  palms: tuple[float, float]
  target: BodyMeasures | None
  renderer: PoseRenderer
  calm: int


class LivePose(NamedTuple):
  """The person in one picture.

  Attributes:
    number, time: number and time of the picture, as in `camera.Picture`.
    driver: the person.
    track: the person's points, as a track of one frame without gaps.
    seconds: how long finding them took.
  """

  number: int
  time: float
  driver: Driver
  track: Track
  seconds: float


def track_live(
  take: Callable[[], Picture | None],
  finder: LandmarkFinder,
  *,
  size: int | FrameSize,
  measures: BodyMeasures | None,
  mapped: bool,
  clock: Callable[[], float],
  report: Callable[[str], object] = print,
  seconds: float = MEASURED,
) -> Iterator[LivePose]:
  """Yields the person's points in each picture as it comes; the first seconds only measure the person.

  Args:
    take: waits for the next picture and returns it, as `camera.NewestPicture` does; None at the end.
    finder: finds the landmarks.
    size: width and height of the pose renders in pixels, or the side of squares.
    measures, mapped: of the trained person; see `film.film_motion`.
    clock: returns the time in seconds; pictures are stamped by the same clock.
    report: takes lines for the user.
    seconds: for how long the person must be seen with their face before the first pose.

  Raises:
    UserError: the pictures ended before that.
  """
  report(f"measuring the person for {seconds:g} s: face the camera, with both hands in the picture")
  detections: list[tuple[float, Detection]] = []
  warn_from, picture_size = None, (0, 0)
  while not detections or detections[-1][0] - detections[0][0] < seconds:
    picture = take()
    if picture is None:
      raise UserError(
        f"the pictures ended before a person and their face were seen for {seconds:g} s: keep the head and hands in the"
        " picture, in better light"
      )
    if warn_from is None:
      finder.start_shot(picture.image)
      warn_from, picture_size = picture.time, (picture.image.shape[1], picture.image.shape[0])
    found = finder.find(picture.image)
    if np.isfinite(found.body[0, 0]) and np.isfinite(found.face[0, 0]):
      detections.append((picture.time, found))
    elif not detections and picture.time - warn_from > _ABSENT:
      report("nobody is seen: the camera must see a head and the upper body, in good light")
      warn_from = float("inf")
  driver, state = start_tracking(
    detections, picture_size, finder.triangles, size=size, measures=measures, mapped=mapped
  )
  report("following")
  cuts, restart = CutWatch(), False
  while (picture := take()) is not None:
    start = clock()
    if cuts.begins_shot(picture.image):
      finder.start_shot(picture.image, reset=True)
      restart = True
    found = finder.find(picture.image)
    if restart and np.isfinite(found.body[0, 0]):
      state, restart = restart_after_cut(driver, state, found, picture.time), False
    state, track = track_picture(driver, state, found, picture.time)
    yield LivePose(picture.number, picture.time, driver, track, clock() - start)


def start_tracking(
  detections: list[tuple[float, Detection]],
  picture_size: tuple[int, int],
  triangles: Int[NdArray, "K 3"],
  *,
  size: int | FrameSize,
  measures: BodyMeasures | None,
  mapped: bool,
) -> tuple[Driver, TrackState]:
  """Returns the filmed person and the state of the tracking at the end of the first seconds.

  Args:
    detections: (time in seconds, detection) of pictures in which the person and their face were found.
    picture_size: width and height of the pictures.
    triangles: of the face mesh.
    size, measures, mapped: see `track_live`.
  """
  body, face, hands = (np.stack(points) for points in zip(*(found[:3] for _, found in detections)))
  count = len(detections)
  fps = (count - 1) / max(detections[-1][0] - detections[0][0], 1e-3) if count > 1 else 1.0
  sure = [found.visible for _, found in detections if found.visible is not None]
  raw = Track(*picture_size, fps, body, face, hands, triangles, (), np.ones(count, bool))
  track = fill_and_smooth(dataclasses.replace(raw, visible=np.stack(sure) if len(sure) == count else None))
  (width, height), center = picture_size, center_of(track.body[:, SHOULDERS, :2], *picture_size)
  crop = frame_person(track_extents(track), center, FrameSize.of(size), width=width, height=height)
  driver = measure(track, crop)
  retargeted = retarget(track, crop, driver, measures) if mapped and measures is not None else None
  if retargeted is not None:
    renderer = PoseRenderer(*retargeted, measures)
  else:
    own = driver
    if measures is not None and mapped:
      own = align(measures, driver)
    elif measures is not None:
      own = dataclasses.replace(driver, widths=measures.widths, cloth=measures.cloth)
    renderer = PoseRenderer(track, crop, own)
  left, right = (
    float(np.median(np.linalg.norm(track.hands[:, side, 9] - track.hands[:, side, 0], axis=-1))) for side in (0, 1)
  )
  time, last = detections[-1][0], track.slice(len(track) - 1, len(track))
  at_rest = lambda points: Smoothed(points, np.zeros_like(points), points, time)
  hands = [_in_forearm_frame(last.hands[:, side], last.body, side)[0] for side in (0, 1)]
  nose = last.body[0, NOSE]
  state = TrackState(
    at_rest(last.body[0]),
    at_rest(last.face[0]),
    last.face[0] - nose,
    (at_rest(hands[0]), at_rest(hands[1])),
    last.body[0, EARS].mean(axis=0),
    starting(_shown(last), time),
  )
  target = None if retargeted is None else measures
  return Driver(track, crop, driver, (left, right), target, renderer, calmest_frame(track, np.arange(count))), state


def _shown(track: Track) -> Bool[NdArray, " 33"]:
  """Which points the first frame of a filled track shows."""
  return np.ones(33, bool) if track.shown is None else track.shown[0] == 1


def restart_after_cut(driver: Driver, state: TrackState, found: Detection, time: float) -> TrackState:
  """Returns the state at the start of a new shot, so that nothing is smoothed across the cut.

  Args:
    driver: from `start_tracking`.
    state: after the picture before.
    found: the detection in this picture, with a body at least; a face or hand that is not found keeps its shape.
    time: of this picture, in seconds.
  """
  raw, unit = _raw(driver, found), driver.track.shoulder_width
  at_rest = lambda points: Smoothed(points, np.zeros_like(points), points, time - _MOMENT)
  body, nose = raw.body, found.body[NOSE]
  from_nose = found.face - nose if np.isfinite(found.face[0, 0]) else state.face_from_nose
  hands = []
  for side in (0, 1):
    wrist = body[:, WRISTS[side]]
    points = raw.hands[:, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)
    known = plausible_hand(points, wrist, unit)[0]
    hands.append(at_rest(_in_forearm_frame(points, body, side)[0]) if known else state.hands[side])
  shown = shown_joints(raw, unit)[0]
  ears, presence = found.body[list(EARS)].mean(axis=0), starting(shown, time - _MOMENT)
  return TrackState(at_rest(found.body), at_rest(from_nose + nose), from_nose, (hands[0], hands[1]), ears, presence)


def _raw(driver: Driver, found: Detection) -> Track:
  """A detection as a track of one frame, with gaps; of a hand that is found twice, once."""
  face = np.array([np.isfinite(found.face[0, 0])])
  visible = None if found.visible is None else found.visible[None]
  track = dataclasses.replace(
    driver.track,
    **dict(body=found.body[None], face=found.face[None], hands=found.hands[None], has_face=face, visible=visible),
    **dict(masks=(), columns=None, cuts=(), has_body=None, has_hands=None, shown=None),
  )
  return dataclasses.replace(track, hands=without_doubles(track))


def _held_arms(
  state: TrackState, body: Float[NdArray, "33 3"], shown: Bool[NdArray, " 33"]
) -> tuple[Smoothed, Float[NdArray, "33 3"]]:
  """The body's filter, restarted for joints that appear, and a body whose hidden arms stay where they were."""
  old, held = state.body.last, body.copy()
  filtered = state.body
  for (shoulder, elbow, wrist, knuckles), (of_elbow, of_wrist) in zip(ARMS, state.presence.share, strict=True):
    hand = [wrist, *knuckles]
    for points, is_shown, share in (([elbow], shown[elbow] or shown[wrist], of_elbow), (hand, shown[wrist], of_wrist)):
      if not is_shown:
        held[points] = old[points] + body[shoulder] - old[shoulder]
      elif share == 0:
        value, velocity, last = filtered.value.copy(), filtered.velocity.copy(), filtered.last.copy()
        value[points] = last[points] = body[points]
        velocity[points] = 0
        filtered = filtered._replace(value=value, velocity=velocity, last=last)
  return filtered, held


def track_picture(driver: Driver, state: TrackState, found: Detection, time: float) -> tuple[TrackState, Track]:
  """Returns the state after a picture, and the person's points in it as a track of one frame without gaps.

  A body that is not found stays in place, and comes to rest after 0.4 s. A face that is not found keeps its shape and
  moves with the nose, a hand with the forearm; after 0.4 s the hand turns into a relaxed one. Arms that the pictures do
  not show turn into those of the rest pose, as `Track.shown` of the result says.

  Args:
    driver: from `start_tracking`.
    state: after the picture before.
    found: the detection in this picture.
    time: of this picture, in seconds.
  """
  unit = driver.track.shoulder_width
  known, raw = bool(np.isfinite(found.body[0, 0])), _raw(driver, found)
  shown = shown_joints(raw, unit)[0]
  presence, before, points, ears = state.presence.after(shown, known, time), state.body, state.body.last, state.ears
  if known:
    passed = max(time - state.presence.time, 0.0)
    ears = ears + passed / (HEAD_TO_SHOULDERS + passed) * (found.body[list(EARS)].mean(axis=0) - ears)
    tall = face_height(driver.track)
    assert tall is not None, "the face was seen in the first seconds"
    standing = under_head(raw.body, ears[None], tall, faint_shoulders(raw, tall))[0]
    before, points = _held_arms(state, standing, shown)
  body_state = one_euro_step(before, points, time, unit)
  body, nose = body_state.value[None], body_state.value[NOSE]
  from_nose = found.face - nose if np.isfinite(found.face[0, 0]) else state.face_from_nose
  face = one_euro_step(state.face, from_nose + nose, time, unit)
  hands, placed = [], []
  for side in (0, 1):
    wrist, old = body[:, WRISTS[side]], state.hands[side]
    points = raw.hands[:, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)  # its depth starts at its wrist
    relaxed = _in_forearm_frame(relaxed_hand(body, side, driver.palms[side]), body, side)[0]
    if plausible_hand(points, wrist, unit)[0]:
      hand = one_euro_step(old, _in_forearm_frame(points, body, side)[0], time, unit)
      value = hand.value
    else:
      hand = old
      faded = float(np.clip((time - old.time - SHORT_GAP) / _FADE, 0, 1))
      value = old.value + faded * (relaxed - old.value)
    hands.append(hand)
    placed.append(rotate(value[None], forearm_turn(body, side)) + wrist[:, None])
  track = dataclasses.replace(
    driver.track,
    body=body.astype(np.float32),
    face=face.value[None].astype(np.float32),
    hands=np.stack(placed, axis=1).astype(np.float32),
    has_face=np.ones(1, bool),
    has_body=None,
    has_hands=None,
    visible=None,
    shown=presence.weights()[None],
  )
  state = TrackState(body_state, face, from_nose, (hands[0], hands[1]), ears, presence)
  return state, _resting(driver, track, presence.resting)


def _resting(driver: Driver, track: Track, share: float) -> Track:
  """A track of one frame, moved to the frame in which the driver rests by a share of the way; arms keep their shape."""
  if not share:
    return track
  calm = driver.track.slice(driver.calm, driver.calm + 1)
  body = track.body + share * (calm.body - track.body)
  hands = track.hands.copy()
  for side, (shoulder, elbow, wrist, knuckles) in enumerate(ARMS):
    step, points = body[:, shoulder] - track.body[:, shoulder], [elbow, wrist, *knuckles]
    body[:, points] = track.body[:, points] + step[:, None]
    hands[:, side] += step[:, None]
  face = track.face + share * (calm.face - track.face)
  return dataclasses.replace(track, body=body, face=face, hands=hands)


def one_euro_step(before: Smoothed, points: Float[NdArray, "N 3"], time: float, unit: float) -> Smoothed:
  """Returns the filter's state after points that came at `time` (seconds).

  `unit` is a shoulder's width in pixels; speed is measured in it.
  """
  passed = time - before.time
  if passed <= 0:
    return before
  velocity = before.velocity + passed / (SLOW + passed) * ((points - before.last) / passed - before.velocity)
  speed = np.linalg.norm(velocity[:, :2], axis=-1, keepdims=True) / unit
  span = SLOW + np.clip(speed / BRISK, 0, 1) * (FAST - SLOW)
  value = before.value + passed / (span + passed) * (points - before.value)
  return Smoothed(value.astype(np.float32), velocity.astype(np.float32), points.astype(np.float32), time)


def pose_frame(driver: Driver, track: Track) -> MotionFrame:
  """Returns the pose render of a track of one frame, retargeted if the driver has a target."""
  crop = driver.crop
  if driver.target is not None:
    retargeted = retarget(track, crop, driver.measures, driver.target)
    assert retargeted is not None, "these measures needed retargeting when tracking started"
    track, crop = retargeted
  render = driver.renderer.with_track(track).render(0)
  landmarks = crop.points(five_landmarks(track.face))[0]
  return MotionFrame(np.ascontiguousarray(render.pose), render.face_mask[..., None], landmarks, render.surface)


def _in_forearm_frame(
  points: Float[NdArray, "T 21 3"], body: Float[NdArray, "T 33 3"], side: int
) -> Float[NdArray, "T 21 3"]:
  """A hand's points relative to the wrist, in the frame of the forearm."""
  return rotate(points - body[:, WRISTS[side], None], -forearm_turn(body, side)).astype(np.float32)
