"""The size of frames as flags, files and arrays write it."""

import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize


@pytest.mark.parametrize("text, size", [("128", (128, 128)), ("384x640", (384, 640)), ("640X384", (640, 384))])
def test_sizes_are_read_from_flags_and_files(text: str, size: tuple[int, int]):
  parsed = FrameSize.parse(text)
  assert parsed == size and FrameSize.of(parsed) == parsed and FrameSize.parse(str(parsed)) == parsed
  assert FrameSize.from_json(parsed.to_json()) == parsed
  assert parsed.shape == (size[1], size[0])


def test_squares_are_written_as_one_number():
  assert FrameSize.of(256).to_json() == 256 and str(FrameSize.of(256)) == "256"
  assert FrameSize(384, 640).to_json() == [384, 640] and str(FrameSize(384, 640)) == "384x640"


@pytest.mark.parametrize("text", ["", "x", "12", "130", "128x", "128x200", "100x64", "64x64x64", "-128", "4096", "٣٢"])
def test_other_sizes_are_refused_in_one_line(text: str):
  with pytest.raises(UserError, match="--size=") as error:
    FrameSize.parse(text)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [True, [128], [128, 0], [1.5, 2], "128", None, [64, 64, 64]])
def test_damaged_sizes_in_files_are_refused(value: object):
  with pytest.raises((ValueError, TypeError)):
    FrameSize.from_json(value)
