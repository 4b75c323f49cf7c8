"""Where a person's head, hands and body are in a film."""

import dataclasses

import cv2
import numpy as np

from anchor_jax.landmarks.extents import join_extents, landmark_extents, track_extents
from anchor_jax.landmarks.filling import fill_and_smooth


def png(mask):
  return cv2.imencode(".png", mask)[1].tobytes()


def test_hair_is_measured_in_the_masks_and_raised_hands_are_not_hair(standing_track):
  track = fill_and_smooth(standing_track(10, (160, 120)))
  left, top, right, bottom = track_extents(dataclasses.replace(track, masks=())).face[0]
  wide, tall = right - left, bottom - top

  def with_hair(above, beside, hand):
    mask = np.zeros((120, 160), np.uint8)
    mask[round(top - above * tall) : round(bottom), round(left - beside * wide) : round(right + beside * wide)] = 255
    mask[hand, round(left) : round(left + wide / 8)] = 255
    return mask

  masks = [with_hair(0.8, 0.3, slice(0, 120 if number == 4 else 0)) for number in range(10)]
  extents = track_extents(dataclasses.replace(track, masks=tuple(map(png, masks))))
  hair = (extents.face - extents.head)[0] / (wide, tall, wide, tall)
  np.testing.assert_allclose(hair, [0.3, 0.8, -0.3, 0], atol=1.5 / wide)
  assert extents.body[0, 1] == round(top - 0.8 * tall) and len(extents.hands) == 20
  bald = track_extents(dataclasses.replace(track, masks=(png(with_hair(0, 0, slice(0, 0))),) * 10))
  assert (bald.face - bald.head)[0, 1] > 0.3 * tall  # the skull is there in any case


def test_points_outside_the_picture_and_unseen_hands_do_not_count(standing_track):
  track = fill_and_smooth(standing_track(6, (160, 120)))
  out = track.hands.copy()
  out[:, 0, :, 1] += 400
  assert track.has_hands is not None
  only_right = dataclasses.replace(track, hands=out, masks=())
  assert len(track_extents(only_right).hands) == 6 and track_extents(only_right).hands.max() <= 160
  nobody = dataclasses.replace(track, has_hands=np.zeros((6, 2), bool), has_face=np.zeros(6, bool), masks=())
  extents = track_extents(nobody)
  assert not len(extents.hands) and len(extents.head) == 6 and len(join_extents([extents, extents]).head) == 12


def test_a_sidecar_gives_the_head_by_five_landmarks(standing_track):
  eyes, mouth = [(40, 40), (60, 40)], [(44, 62), (56, 62)]
  landmarks = np.array([[*eyes, (50, 52), *mouth]] * 3, np.float32)
  landmarks[1] = np.nan
  mask = np.zeros((120, 100), np.uint8)
  mask[20:120, 10:90] = 255
  extents = landmark_extents(landmarks, iter([mask] * 3), (100, 120))
  assert len(extents.head) == 2 and extents.inside(0, 0, 100, 120) == 1
  left, top, right, bottom = extents.head[0]
  assert left < 30 and -10 < top < 10 and right > 70 and 70 < bottom < 80
  assert extents.hands.tolist() == [[10, 20, 90, 120]] * 3
  alone = landmark_extents(landmarks)
  assert len(alone.head) == 2 and not len(alone.hands) and not len(alone.body)
  assert extents.inside(0, 30, 100, 120) == extents.inside(45, 0, 100, 120) == 0
