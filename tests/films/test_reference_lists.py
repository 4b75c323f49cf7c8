"""The training lists of the paper's own implementation become prepared folders."""

import json
import shutil

import cv2
import numpy as np
import pytest

from anchor_jax.body.face_crop import TEMPLATE_512
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.prepare import prepare_reference
from tests.helpers.strange import strange_files

CROPS = [f"head_crop/{name}" for name in ("aligned", "raw_aligned", "raw_aligned_mask")]


@pytest.fixture
def folders(tmp_path):
  """Two videos of wide frames whose gray level is their index, in shuffled lists."""
  root, body, head = tmp_path / "data", [], []
  for video, count in (("split_2", 3), ("split_10", 11)):
    for name in (
      "image",
      "ours_exp/mica_org",
      "head_crop/aligned",
      "head_crop/raw_aligned",
      "head_crop/raw_aligned_mask",
    ):
      (root / video / name).mkdir(parents=True)
    for number in range(count):
      level = 20 * number + (5 if video == "split_2" else 0)
      at = lambda folder, number=number, video=video: root / video / folder / f"{number}.png"
      frame, pose = np.full((48, 64, 3), level, np.uint8), np.zeros((48, 64, 3), np.uint8)
      frame[:, :8], pose[12:36, 20:44] = 255, (200, 100, 50)  # BGR; the left edge is outside the square
      mask = np.full((64, 64, 3), 255, np.uint8)
      mask[16:48, 16:48] = 0
      pictures = {"image": frame, "ours_exp/mica_org": pose, "head_crop/aligned": pose[:, :48]}
      pictures |= {"head_crop/raw_aligned": frame[:, 8:56], "head_crop/raw_aligned_mask": mask}
      for folder, picture in pictures.items():
        cv2.imwrite(str(at(folder)), picture)
      names = {"source": at("ours_exp/mica_org"), "target": at("image"), "reference": at("image")}
      body.append({name: str(place) for name, place in names.items()})
      crop = {"source": at("head_crop/aligned"), "target": at("head_crop/raw_aligned")}
      head.append({name: str(place) for name, place in {**crop, "mask": at("head_crop/raw_aligned_mask")}.items()})
  for name, lines in (("body_train.json", body), ("head_train.json", head)):
    np.random.default_rng(0).shuffle(lines)
    (root / name).write_text("\n".join(map(json.dumps, [*lines, lines[0]])) + "\n")
  return root


def test_a_body_list_with_moved_folders(folders, tmp_path):
  moved = tmp_path / "elsewhere"
  shutil.move(folders, moved)  # the paths in the lists are absolute
  meta = prepare_reference(moved / "body_train.json", tmp_path / "ana", size=32)
  assert [(video["name"], video["frames"], video["fps"]) for video in meta["videos"]] == [
    ("split_2/image", 3, 30.0), ("split_10/image", 11, 30.0)
  ]  # fmt: skip
  source = open_prepared(tmp_path / "ana")
  assert [int(source[n]["frame"][0, 0, 0]) for n in range(14)] == [5, 25, 45, *range(0, 220, 20)]
  record = source[1]
  np.testing.assert_array_equal(record["pose"][16, 16], (50, 100, 200))
  assert record["person_mask"][16, 16] == 255 and record["person_mask"][2, 2] == 0
  assert not source.has_landmarks.any() and not source.has_surface.any() and not record["face_mask"].any()


def test_a_head_list(folders, tmp_path):
  prepare_reference(folders / "head_train.json", tmp_path / "heads", size=64, person="Ana", fps=25)
  source = open_prepared(tmp_path / "heads")
  assert source.meta["people"] == ["Ana"] and source.fps == 25 and source.has_landmarks.all()
  record = source[0]
  np.testing.assert_allclose(record["landmarks"], TEMPLATE_512 / 8, rtol=1e-6)
  assert record["face_mask"][32, 32] == 255 and record["face_mask"][4, 4] == 0


def test_malformed_lists_are_refused(folders, tmp_path):
  for text, message in (
    ("[]", "line 1"),
    ('{"source": "a.png", "target": "b.png"}', "no picture b.png"),
    ("{", "line 1"),
  ):
    (folders / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
      prepare_reference(folders / "x.json", tmp_path / "x", size=32)
  with pytest.raises(UserError, match="there is no list"):
    prepare_reference(folders / "none.json", tmp_path / "x", size=32)
  for path, message in strange_files(tmp_path / "odd", ".json").items():
    with pytest.raises(UserError, match=message):
      prepare_reference(path, tmp_path / "x", size=32)
