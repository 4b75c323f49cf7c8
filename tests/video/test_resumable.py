import tracemalloc

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.video.read import read_frames
from anchor_jax.video.resumable import ResumableWriter
from tests.helpers.strange import strange_files

FRAMES = [np.full((32, 32, 3), 8 * number, np.uint8) for number in range(24)]


def begun(path, count=16):
  """A partial file of complete 8-frame fragments."""
  writer = ResumableWriter(path, 8.0, {"seed": 1})
  for frame in FRAMES[:count]:
    writer.write(frame)
  writer.close()
  return writer.partial


def test_a_partial_file_is_continued_without_loading_it(tmp_path):
  partial = begun(tmp_path / "clip.mp4")
  with partial.open("ab") as file:  # a truncated 2 GB fragment, as a sparse file
    file.write((2**31).to_bytes(4, "big") + b"mdat")
    file.truncate(2**30)
  tracemalloc.start()
  try:
    writer = ResumableWriter(tmp_path / "clip.mp4", 8.0, {"seed": 1}, resume=True)
    assert tracemalloc.get_traced_memory()[1] < 2**24
  finally:
    tracemalloc.stop()
  assert writer.frames == 16
  for frame in FRAMES[writer.frames :]:
    writer.write(frame)
  writer.finish({})
  shown = [int(frame.mean().round()) for frame in read_frames(tmp_path / "clip.mp4")]
  np.testing.assert_allclose(shown, [8 * number for number in range(24)], atol=3)
  assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_file_that_is_no_partial_video_is_a_one_line_error(tmp_path):
  with pytest.raises(UserError, match="other settings"):
    begun(tmp_path / "a.mp4")
    ResumableWriter(tmp_path / "a.mp4", 8.0, {"seed": 2}, resume=True)
  for path, message in strange_files(tmp_path / "odd", ".partial.mp4").items():
    if len(path.name) < 255 and "\0" not in path.name:
      name = path.name.replace(".partial", "")
      with pytest.raises(UserError, match=message):
        ResumableWriter(path.with_name(name), 8.0, {"seed": 1}, resume=True)
