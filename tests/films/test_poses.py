import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.core.errors import UserError
from anchor_jax.films import clips as clips_module
from anchor_jax.films import poses
from anchor_jax.landmarks import model
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.video.read import probe
from anchor_jax.video.write import VideoWriter


def read_clips(opened, **options):
  films = clips_module.read_films(opened, [clips_module.examine(film) for film in opened], **options)
  return [clip for film in films for clip in film.clips]


def test_frames_are_repeated_or_dropped_for_another_rate():
  def resampled(count, fps, target_fps):
    return list(clips_module.resample_frames(range(count), fps, target_fps))

  assert resampled(6, 30, 15) == [0, 2, 4]
  assert resampled(3, 10, 20) == [0, 0, 1, 1, 2, 2]
  assert resampled(5, 25, 25) == [0, 1, 2, 3, 4]
  assert len(resampled(300, 29.97, 25)) in (250, 251)


def test_clips_of_films_with_sidecars(tmp_path, posed_frames):
  write_posed_video(tmp_path / "a.mp4", posed_frames(4, (48, 80), missing=(2,)), 30)
  write_posed_video(tmp_path / "b.mp4", posed_frames(4, (48, 80), seed=1), 30)
  first, second = read_clips(
    [poses.open_film(tmp_path / name) for name in ("a.mp4", "b.mp4")], size=24, person="ann", fps=15
  )
  assert (first.name, first.person, first.fps) == ("a", "ann", 15.0)
  assert first.crop == second.crop == (16, 0, 48)  # centered on the person; one square for both
  frames, truth = list(first.frames), list(posed_frames(4, (48, 80), missing=(2,)))
  assert len(frames) == 2 and np.isnan(frames[1].landmarks).all()
  np.testing.assert_allclose(frames[0].landmarks, (truth[0].landmarks - [16, 0]) / 2, atol=1e-4)
  assert frames[0].pose.shape == (24, 24, 3) and set(np.unique(frames[0].face_mask)) == {0, 255}
  fixed = read_clips([poses.open_film(tmp_path / "a.mp4")], size=24, person="ann", crop=CropRect.square(0, 8, 40, 99))
  assert fixed[0].crop == (0, 8, 40) and next(iter(fixed[0].frames)).frame.shape == (24, 24, 3)
  with pytest.raises(UserError, match="does not fit"):
    read_clips([poses.open_film(tmp_path / "a.mp4")], size=24, person="ann", crop=CropRect.square(40, 0, 48, 24))


def test_a_missing_landmark_model_is_a_one_line_error(tmp_path, monkeypatch):
  with VideoWriter(tmp_path / "real.mp4", 25) as writer:
    writer.write(np.zeros((16, 16, 3), np.uint8))
  monkeypatch.setenv("ANCHOR_JAX_LANDMARKS", str(tmp_path / "none"))
  with pytest.raises(UserError, match="make landmarks") as error:
    poses.open_film(tmp_path / "real.mp4")
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match='no landmark model "magic"'):
    poses.open_film(tmp_path / "real.mp4", "magic")


@pytest.mark.slow
@needs_landmarks
def test_the_landmark_model_finds_a_studio_person(tmp_path):
  from anchor_jax import studio
  from anchor_jax.landmarks import sidecar, tracks

  times = [0.1 * i for i in range(6)]
  frames = list(studio.render_clip(studio.make_identity(1), studio.make_motion(5), times, 256, workers=1))
  path = tmp_path / "person.mp4"
  sidecar.write_posed_video(path, frames, 10, metadata={})
  track = model.track_video(path, probe(path))
  assert track.has_face.all() and np.isfinite(track.body).all() and len(track.triangles) > 800
  error = np.linalg.norm(tracks.five_landmarks(track.face) - np.stack([f.landmarks for f in frames]), axis=-1)
  assert error.mean() < 3  # of 256 pixels
  for number, frame in enumerate(frames):
    mask = track.mask(number)
    assert (mask & frame.person_mask).astype(bool).sum() > 0.85 * (mask | frame.person_mask).astype(bool).sum()
  rerun = model.track_video(path, probe(path))
  np.testing.assert_array_equal(track.face, rerun.face)
  sidecar.sidecar_path(path).rename(tmp_path / "away")
  clip = read_clips([poses.open_film(path)], size=64, person="ann")[0]
  for found, frame in zip(clip.frames, frames, strict=True):
    body = found.pose.max(axis=-1) > 0
    shown = np.array(frame.pose.max(axis=-1) > 0)[2::4, 2::4]
    assert (body & shown).sum() > 0.75 * (body | shown).sum()  # close to the studio's own pose render
