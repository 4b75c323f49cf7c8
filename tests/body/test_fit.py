"""Widths of a person's solids are fitted to masks."""

import dataclasses

import cv2
import numpy as np
import pytest

from anchor_jax.body.charts import SIDES, chart
from anchor_jax.body.fit import fit_body, fit_widths, outline
from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.evidence import standard_parts
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure, median_measures
from anchor_jax.landmarks.proportions.widths import Widths

SQUARE = CropRect.square(0, 0, 240, 64)
TRUE = Widths(
  torso=(1.25, 1.25, 1.2, 1.15, 1.1, 1.0, 1.0), shoulder=1.2, elbow=1.3, wrist=1.4, neck=1.2, skull=(1.3, 1.2)
)


def outline_of(renderer, number, shape):
  solids = renderer.torso(number) + renderer.head(number) + renderer.arms(number)
  return outline([solid for solid, _ in solids], shape)


def masks_of(track, widths):
  """The track with masks drawn from solids of these widths, in pixels of the video."""
  square = CropRect.square(0, 0, track.height, track.height)
  renderer = PoseRenderer(track, square, dataclasses.replace(measure(track, square), widths=widths))
  masks = []
  for number in range(len(track)):
    mask = np.zeros((track.height, track.width), np.uint8)
    mask[:, : track.height] = np.where(outline_of(renderer, number, (track.height, track.height)), 255, 0)
    masks.append(cv2.imencode(".png", mask)[1].tobytes())
  return dataclasses.replace(track, masks=tuple(masks))


@pytest.fixture(scope="module")
def film(standing_track):
  """A person of known widths who stands on the left and moves their arms away from the body."""
  track = standing_track(frames=3, size=(320, 240))
  body, hands = track.body.copy(), track.hands.copy()
  for number in range(3):
    for side, sign in ((0, 1), (1, -1)):
      out = np.array([sign * 10 * number, -6 * number, 0], np.float32)
      body[number, 13 + side] += out / 2
      body[number, 15 + side] += out
      hands[number, side] += out
  left = np.array([-40, 0, 0], np.float32)
  track = dataclasses.replace(track, body=body + left, hands=hands + left, face=track.face + left)
  return masks_of(fill_and_smooth(track), TRUE)


def fit(track):
  return fit_widths([(track, SQUARE, measure(track, SQUARE))])


def cover(track, widths):
  """The shares of the masks' area that solids of these widths cover and spill over."""
  renderer = PoseRenderer(track, SQUARE, dataclasses.replace(measure(track, SQUARE), widths=widths))
  drawn = np.stack([outline_of(renderer, number, SQUARE.size.shape) for number in range(len(track))])
  masks = np.stack([SQUARE.mask(track.mask(number)) > 0 for number in range(len(track))])
  return (masks & drawn).sum() / masks.sum(), (drawn & ~masks).sum() / masks.sum()


def test_known_widths_are_recovered(film):
  found = fit(film)
  for name in ("shoulder", "elbow", "wrist", "neck", "skull"):
    np.testing.assert_allclose(getattr(found, name), getattr(TRUE, name), rtol=0.06, err_msg=name)
  np.testing.assert_allclose(found.torso[:5], TRUE.torso[:5], rtol=0.08)
  assert found.hair is None
  (covered, spilled), (bare, _) = cover(film, found), cover(film, None)
  assert covered > 0.98 and spilled < 0.03 and bare < 0.93


def test_falling_hair_is_found(film):
  long = dataclasses.replace(TRUE, hair=(1.7, 0.8))
  film = masks_of(film, long)
  found = fit(film)
  np.testing.assert_allclose(found.hair, long.hair, rtol=0.15)
  assert cover(film, found)[0] > 0.98


def test_a_standard_body_stays_standard(film):
  found = fit(masks_of(film, Widths()))
  np.testing.assert_allclose([found.shoulder, found.elbow, found.neck, *found.skull], 1, atol=0.05)
  np.testing.assert_allclose(found.torso[:5], 1, atol=0.085)  # the arms hide some of it


def test_without_masks_there_is_no_fit(film):
  empty = cv2.imencode(".png", np.zeros((240, 320), np.uint8))[1].tobytes()
  assert fit(dataclasses.replace(film, masks=(empty,) * len(film))) is None
  assert fit(dataclasses.replace(film, masks=())) is None and fit_widths([]) is None


def test_what_the_picture_does_not_show_is_a_standard_bodys(film):
  crop = CropRect(60, 10, 120, 120, FrameSize(64, 64))  # head and shoulders
  coat = masks_of(film.slice(0, 1), Widths(torso=(1.6,) * 7, wrist=1.7, fingers=1.7, shoulder=1.3))
  own = measure(coat, crop)
  body = fit_body(own, [(coat, crop, own)])
  assert body.widths is not None and body.evidence is not None
  np.testing.assert_allclose([*body.widths.torso[:3], body.widths.wrist, body.widths.fingers], 1, atol=0.1)
  decided = body.evidence.widths
  assert max(*decided["torso"][:3], decided["wrist"], decided["fingers"]) < 0.1
  assert min(decided["shoulder"], *decided["skull"]) > 0.5
  assert {"hips", "waist", "hands"} <= set(standard_parts(body.evidence))
  stored = BodyMeasures.from_json(body.to_json())
  assert stored.evidence == body.evidence and stored.widths == body.widths
  for damage in ({"frames": "many"}, {"lengths": 3}, {"widths": {"neck": 2.0}}):
    with pytest.raises((ValueError, TypeError)):
      BodyMeasures.from_json(body.to_json() | {"evidence": body.evidence.to_json() | damage})


def test_other_widths_keep_the_coordinates_on_the_body(film):
  measures = measure(film, SQUARE)
  plain, wide = (
    PoseRenderer(film, SQUARE, dataclasses.replace(measures, widths=widths)).render(0) for widths in (None, TRUE)
  )
  standard = PoseRenderer(film, SQUARE, dataclasses.replace(measures, widths=Widths())).render(0)
  np.testing.assert_array_equal(plain.pose, standard.pose)
  np.testing.assert_array_equal(plain.surface, standard.surface)
  hidden = {chart(part, side) for part in ("ear", "eye") for side in SIDES}  # a wider skull may hide these at this size
  assert set(np.unique(wide.surface[..., 0])) - hidden == set(np.unique(plain.surface[..., 0])) - hidden
  colors = [item.pose.reshape(-1, 3).sum(axis=0, dtype=float) for item in (plain, wide)]
  np.testing.assert_allclose(*(color / color.sum() for color in colors), rtol=0.01)
  sides = [np.ptp(item.surface[40, item.pose[40].any(axis=-1), 1].astype(int)) for item in (plain, wide)]
  assert min(sides) > 180  # the charts stretch with the body


def test_widths_are_stored_with_the_measures(film):
  plain = measure(film, SQUARE)
  fitted = dataclasses.replace(plain, widths=dataclasses.replace(TRUE, hair=(1.5, 0.75)))
  assert "widths" not in plain.to_json() and BodyMeasures.from_json(plain.to_json()).widths is None
  stored = fitted.to_json()
  assert BodyMeasures.from_json(stored).widths == fitted.widths
  for change in ({"neck": 0}, {"torso": [1.0]}, {"skull": [1.0, float("nan")]}, {"hair": 1}, {"jaw": None}):
    with pytest.raises((ValueError, TypeError)):
      BodyMeasures.from_json(stored | {"widths": stored["widths"] | change})
  assert median_measures([plain, fitted, plain], [9, 5, 2]).widths == fitted.widths
