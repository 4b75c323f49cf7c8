import numpy as np
import pytest

from anchor_jax.texture.blocks import MOST, plan_blocks


@pytest.mark.parametrize(
  "lengths, fps",
  [((720,), 12), ((30,), 25), ((3,), 25), ((1,), 25), ((60, 60, 60), 25), ((7, 400, 9), 12), ((50,) * 40, 25)],
)
def test_no_frame_sees_its_own_second(lengths, fps):
  videos = np.repeat(np.arange(len(lengths)), lengths)
  blocks = plan_blocks(videos, fps)
  assert blocks.count <= MOST and len(blocks.of_frame) == len(videos)
  assert set(blocks.of_frame) == set(range(blocks.count))
  assert (np.diff(blocks.of_frame) >= 0).all()
  for index in range(len(videos)):
    seen = np.flatnonzero(blocks.seen_by(int(blocks.of_frame[index]))[blocks.of_frame])
    assert index not in seen
    near = seen[videos[seen] == videos[index]]
    if len(near) and sum(lengths) > 5 * fps:
      assert np.abs(near - index).min() > fps * 0.9
  assert blocks.seen_by(None).all()


def test_most_of_a_minute_is_seen():
  blocks = plan_blocks([0] * 720, 12)
  seen = [blocks.seen_by(block)[blocks.of_frame].mean() for block in range(blocks.count)]
  assert min(seen) > 0.8


def test_a_film_shorter_than_a_second_is_folded():
  blocks = plan_blocks([0] * 15, 25)
  assert blocks.count == 5
  assert [blocks.seen_by(block).sum() for block in range(5)] == [3, 2, 2, 2, 3]


def test_no_frames_no_blocks():
  with pytest.raises(ValueError, match="without frames"):
    plan_blocks([], 25)
