"""Pose renders of filmed people."""

import dataclasses

import numpy as np

from anchor_jax.body.charts import chart, face_mask, hands_mask
from anchor_jax.body.pose import PoseRenderer, posed_frames
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.video.write import VideoWriter

SQUARE = CropRect.square(20, 0, 120, 64)


def test_a_lit_body_is_rendered_on_black(standing_track):
  track = fill_and_smooth(standing_track())
  pose, face, _ = PoseRenderer(track, SQUARE).render(0)
  assert pose.shape == (64, 64, 3) and face.shape == (64, 64) and set(np.unique(face)) == {0, 255}
  chest = SQUARE.points(track.body[0, [11, 12]]).mean(axis=0) + [0, 8, 0]
  assert pose[int(chest[1]), int(chest[0])].min() > 60
  assert pose[:5].max() == 0 and pose[:, :3].max() == 0
  nose = SQUARE.points(track.body[0, 0])
  assert face[int(nose[1]), int(nose[0])] == 255 and 20 < (face > 0).sum() < 300
  assert np.ptp(pose.reshape(-1, 3).astype(int) @ [1, 1, -2]) < 120  # one color


def test_hands_hide_the_face(standing_track):
  track = standing_track()
  raised = track.body.copy()
  raised[:, 16, :2] = raised[:, 0, :2] + [0, 4]
  hands = track.hands.copy()
  hands[:, 1] += (raised[:, 16] - track.body[:, 16])[:, None]
  open_face = PoseRenderer(fill_and_smooth(track), SQUARE).render(0)[1]
  hidden = PoseRenderer(fill_and_smooth(standing_track(body=raised, hands=hands)), SQUARE).render(0)[1]
  assert (hidden > 0).sum() < 0.8 * (open_face > 0).sum()


def test_the_render_moves_with_the_person(standing_track):
  track = fill_and_smooth(standing_track())
  shift = np.array([15, 0, 0], np.float32)  # 8 pixels of the square
  moved = dataclasses.replace(track, body=track.body + shift, face=track.face + shift, hands=track.hands + shift)
  still, shifted = (PoseRenderer(t, SQUARE).render(0)[0].astype(int) for t in (track, moved))
  np.testing.assert_allclose(shifted[:, 8:], still[:, :-8], atol=12)


def test_without_a_face_there_is_still_a_head(standing_track):
  track = fill_and_smooth(standing_track(face=np.full((6, 478, 3), np.nan, np.float32)))
  pose, face, _ = PoseRenderer(track, SQUARE).render(0)
  nose = SQUARE.points(track.body[0, 0])
  assert pose[int(nose[1]), int(nose[0])].min() > 40 and not face.any()


def test_renders_do_not_depend_on_pixels_of_the_video(tmp_path, standing_track):
  track, clips = fill_and_smooth(standing_track(frames=3)), []
  for name, value in (("dark", 10), ("bright", 240)):
    with VideoWriter(tmp_path / f"{name}.mp4", 25) as writer:
      for _ in range(3):
        writer.write(np.full((120, 160, 3), value, np.uint8))
    clips.append(list(posed_frames(tmp_path / f"{name}.mp4", track, SQUARE)))
  for number, (dark, bright) in enumerate(zip(*clips, strict=True)):
    np.testing.assert_array_equal(dark.pose, bright.pose)
    np.testing.assert_array_equal(dark.face_mask, bright.face_mask)
    np.testing.assert_array_equal(dark.surface, bright.surface)
    mask = SQUARE.mask(track.mask(number))
    np.testing.assert_array_equal(dark.person_mask > 127, mask > 127)
    assert bright.frame.min() > dark.frame.max() and set(np.unique(mask)) == {0, 255}
    assert np.isfinite(dark.landmarks).all() and dark.frame.shape == (64, 64, 3)


def test_every_lit_pixel_has_a_place_on_the_body(standing_track):
  track = fill_and_smooth(standing_track())
  pose, face, surface = PoseRenderer(track, SQUARE).render(0)
  lit = pose.any(axis=-1)
  assert not surface[~lit].any() and (surface[lit][:, 0] > 0).mean() > 0.9
  # the skull bulges through the face without hiding it; this mesh fills half of its oval
  assert (face_mask(surface)[face > 0] > 0).mean() > 0.5
  # the left arm is on the picture's right, the right hand in front of the chest
  for name, right_of_the_middle in (("left_forearm", True), ("left_upper_arm", True), ("right_upper_arm", False)):
    side, _, part = name.partition("_")
    columns = np.nonzero(surface[..., 0] == chart(part, side))[1]
    assert len(columns) > 10 and (columns.mean() > 32) == right_of_the_middle, name
  hand_charts = surface[hands_mask(surface) > 0][:, 0]
  hands = [chart(part, "right") for part in ("palm", "hand_back", "thumb", "index", "middle", "ring", "little")]
  assert np.isin(hand_charts, hands).sum() > 30
  chest = SQUARE.points(track.body[0, [11, 12]]).mean(axis=0) + [8, 10, 0]
  assert surface[int(chest[1]), int(chest[0]), 0] == chart("chest")


def test_the_skin_moves_with_the_person(standing_track):
  track = fill_and_smooth(standing_track())
  shift = np.array([15, 0, 0], np.float32)  # 8 pixels of the square
  moved = dataclasses.replace(track, body=track.body + shift, face=track.face + shift, hands=track.hands + shift)
  still, shifted = (PoseRenderer(t, SQUARE).render(0)[2].astype(int) for t in (track, moved))
  difference = np.abs(shifted[:, 8:] - still[:, :-8]).max(axis=-1)[still[:, :-8, 0] > 0]
  assert (difference <= 1).mean() > 0.98


def test_a_mirrored_hand_shows_its_other_side(standing_track):
  track = standing_track()
  turned = track.hands.copy()
  turned[..., 0] = 2 * turned[..., :1, 0] - turned[..., 0]  # mirrored
  counts = []
  for hands in (track.hands, turned):
    surface = PoseRenderer(fill_and_smooth(standing_track(hands=hands)), SQUARE).render(0)[2]
    counts.append([np.sum(surface[..., 0] == chart(part, "right")) for part in ("palm", "hand_back")])
  (palm, back), (palm_turned, back_turned) = counts
  assert max(palm, back) > 5 * min(palm, back) and (palm > back) != (palm_turned > back_turned)
