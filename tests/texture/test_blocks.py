import numpy as np
import pytest

from anchor_jax.texture.blocks import MAX_BLOCKS, plan_blocks


@pytest.mark.parametrize(
  "lengths, fps",
  [((720,), 12), ((30,), 25), ((3,), 25), ((1,), 25), ((60, 60, 60), 25), ((7, 400, 9), 12), ((50,) * 40, 25)],
)
def test_no_frame_sees_frames_within_a_second(lengths, fps):
  videos = np.repeat(np.arange(len(lengths)), lengths)
  blocks = plan_blocks(videos, fps)
  assert blocks.count <= MAX_BLOCKS and len(blocks.of_frame) == len(videos)
  assert set(blocks.of_frame) == set(range(blocks.count))
  assert (np.diff(blocks.of_frame) >= 0).all()
  for index in range(len(videos)):
    seen = np.flatnonzero(blocks.seen_by(int(blocks.of_frame[index]))[blocks.of_frame])
    assert index not in seen
    near = seen[videos[seen] == videos[index]]
    if len(near) and sum(lengths) > 5 * fps:
      assert np.abs(near - index).min() > fps * 0.9
  assert blocks.seen_by(None).all()


def test_each_block_sees_most_of_a_minute():
  blocks = plan_blocks([0] * 720, 12)
  seen = [blocks.seen_by(block)[blocks.of_frame].mean() for block in range(blocks.count)]
  assert min(seen) > 0.8


def test_a_film_shorter_than_a_second_gets_five_blocks():
  blocks = plan_blocks([0] * 15, 25)
  assert blocks.count == 5
  assert [blocks.seen_by(block).sum() for block in range(5)] == [3, 2, 2, 2, 3]


def test_a_film_without_frames_is_refused():
  with pytest.raises(ValueError, match="without frames"):
    plan_blocks([], 25)
