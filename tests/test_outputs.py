"""Commands replace their own outputs, and no other files with the same suffix."""

import json

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.core.html import page
from anchor_jax.demo import check_demo
from anchor_jax.evaluation.page import ComparisonPage, is_page
from anchor_jax.evaluation.tables import is_report, save_report
from anchor_jax.generate import is_synthetic, is_timing
from anchor_jax.video.resumable import ResumableWriter
from anchor_jax.video.transparent import TransparentWriter
from anchor_jax.video.write import write_video

FRAMES = np.zeros((3, 32, 32, 3), np.uint8)
SETTINGS = {"synthetic": True, "seed": 0}


def test_generated_videos_are_recognized_and_films_are_not(tmp_path):
  writers = (
    ResumableWriter(tmp_path / "a.mp4", 25, SETTINGS),
    TransparentWriter(tmp_path / "a.webm", 25, {"comment": json.dumps(SETTINGS)}),
    TransparentWriter(tmp_path / "a.mov", 25, {"comment": json.dumps(SETTINGS)}),
  )
  for writer in writers:
    for frame in FRAMES:
      writer.write(frame if writer.path.suffix == ".mp4" else np.concatenate([frame, frame[..., :1]], axis=-1))
    writer.finish({})
    assert is_synthetic(writer.path)
  write_video(tmp_path / "film.mp4", FRAMES, 25, metadata={"title": "holiday"})
  (tmp_path / "text.mp4").write_text("synthetic")
  assert not is_synthetic(tmp_path / "film.mp4") and not is_synthetic(tmp_path / "text.mp4")


def test_reports_and_pages_are_recognized_and_other_files_are_not(tmp_path):
  path = tmp_path / "report.json"
  save_report({"frames": 3, "training_frames": 4}, path)
  assert is_report(path) and not is_timing(path)
  for text in ('{"name": "package"}', "[]", "{"):
    path.write_text(text)
    assert not is_report(path) and not is_timing(path)
  path.write_text('{"frames_per_second": 25.0, "latency_median": 0.1}')
  assert is_timing(path)
  path.write_text(page("Films of ana", "x"))
  assert not is_page(path)
  with ComparisonPage(25) as comparison:
    record = {name: np.zeros((32, 32, 1), np.uint8) for name in ("person_mask", "face_mask", "hands_mask")}
    figures = {"psnr": 1.0, "ssim": 0.5, "flicker": 0.0, "sharpness": 1.0}
    comparison.add(FRAMES[0], {**record, "frame": FRAMES[0], "pose": FRAMES[0]}, {"person": figures})
    path.write_text(comparison.text({"frames": 1, "person": {"generated": figures}}))
  assert is_page(path)


@pytest.mark.parametrize("name", ["film.mp4", "report.json", "contact_sheet.png"])
def test_the_demo_does_not_replace_a_user_s_files(tmp_path, name):
  check_demo(tmp_path)
  (tmp_path / name).write_text("years")
  with pytest.raises(UserError, match=rf"{name}: that file was not written by this command"):
    check_demo(tmp_path)
