"""Another background behind a person, of whom it is known which share of each pixel she has."""

import itertools

import cv2
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.inference.backdrop import Backdrop
from anchor_jax.inference.backgrounds import backgrounds, check_background
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.texture.matte import person_share
from anchor_jax.texture.stored import Texture
from anchor_jax.video.transparent import TransparentWriter
from anchor_jax.video.write import VideoWriter

SIZE = 64


def scene(noise=2.0):
  """(picture, true share, her own colours, pose's body, room): a disc of two colours, a tuft beside it, a shadow."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[: 8 * SIZE, : 8 * SIZE] / (8 * SIZE) - 0.5
  body = x**2 + y**2 < 0.3**2
  tuft = (abs(x) < 0.05) & (y < -0.25) & (y > -0.36)  # hair that the pose knows nothing of
  fine = (body | tuft).astype(np.float32)
  share = cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
  row = np.arange(SIZE)[:, None, None] / SIZE
  room = np.broadcast_to(np.array([150, 160, 140]) + 40 * row, (SIZE, SIZE, 3)).astype(np.float32)
  own = np.tile(np.array([200, 60, 50], np.float32), (SIZE, SIZE, 1))
  own[:, SIZE // 2 :] = 40, 50, 120
  own[: SIZE // 4] = 70, 45, 30
  shadow = np.ones((SIZE, SIZE, 1), np.float32)
  shadow[:, 50:54] = 0.8
  picture = share[..., None] * own + (1 - share[..., None]) * room * shadow + rng.normal(0, noise, own.shape)
  pose = cv2.resize(body.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 0.5
  to_bytes = lambda image: np.clip(np.rint(image), 0, 255).astype(np.uint8)
  return to_bytes(picture), share, own, pose, to_bytes(room)


def test_the_share_is_the_true_one_also_of_hair_and_in_a_shadow():
  picture, true, own, pose, room = scene()
  share, colours = person_share(picture, pose, room, np.ones((SIZE, SIZE), bool))
  assert np.abs(share - true).mean() < 0.01 and np.quantile(np.abs(share - true), 0.99) < 0.25
  assert share[true == 0].max() < 0.2 and share[12:20, 31:33].min() > 0.9
  # Before another background nothing of the room is left, which is lighter than both.
  for background in (0.0, 255.0):
    made = share[..., None] * colours + (1 - share[..., None]) * background
    wanted = true[..., None] * own + (1 - true[..., None]) * background
    assert np.abs(made - wanted).mean() < 4
    np.testing.assert_array_equal(made[:4], background)
  unknown, _ = person_share(picture, pose, room, np.zeros((SIZE, SIZE), bool))
  assert np.abs(unknown - pose).mean() < 0.02  # where the room was never seen the pose alone tells


def room_of(plate):
  """An texture that knows nothing but the room."""
  charts, texels, level = np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8), np.full(plate.shape[:2], 255)
  none = np.zeros((0, *plate.shape), np.uint8)
  return Texture((("none", False),), charts, texels, texels, plate, level.astype(np.uint8), none, none)


def backdrop(name, start=0):
  """A backdrop and a motion that it watches: frames whose bodies move to the right."""
  _, _, _, pose, room = scene()
  still = lambda n: MotionFrame(
    np.repeat(255 * np.roll(pose, n, 1)[..., None], 3, 2).astype(np.uint8),
    np.zeros((SIZE, SIZE, 1), np.uint8),
    np.zeros((5, 2), np.float32),
  )
  motion = Motion(10.0, SIZE, 6, lambda first: iter([still(n) for n in range(first, 6)]))
  made = Backdrop(name, room_of(room), start)
  return made, made.watch(motion)


def test_frames_meet_their_own_bodies_also_where_a_run_goes_on():
  picture, _, _, _, _ = scene()
  moved = [np.roll(picture, n, axis=1) for n in range(6)]
  whole, motion = backdrop("green")
  list(motion.frames(0))
  frames = [whole.behind(frame) for frame in moved]
  assert frames[0].shape == (SIZE, SIZE, 3) and (frames[0][2, 2] == (0, 177, 64)).all()
  later, motion = backdrop("green", start=4)
  list(motion.frames(2))  # a stream begins with frames that are not shown again
  for number in (4, 5):
    np.testing.assert_array_equal(later.behind(moved[number]), frames[number])
  clear, motion = backdrop("transparent")
  list(motion.frames(0))
  made = clear.behind(picture)
  assert made.shape == (SIZE, SIZE, 4) and made[2, 2, 3] == 0 and made[32, 32, 3] == 255
  with pytest.raises(UserError, match="--background needs to know the room"):
    Backdrop("green", None)


def test_backgrounds_are_cropped_and_videos_begin_anew(tmp_path):
  cv2.imwrite(str(tmp_path / "wide.png"), np.hstack([np.full((40, 20, 3), v, np.uint8) for v in (0, 90, 90, 0)]))
  still = next(backgrounds(str(tmp_path / "wide.png"), 32, 10))
  assert still.shape == (32, 32, 3) and (still == 90).all()
  with VideoWriter(tmp_path / "film.mp4", 5) as writer:
    for level in (20, 120, 220):
      writer.write(np.full((32, 48, 3), level, np.uint8))
  shown = lambda start: [
    int(frame.mean().round(-1)) for frame in itertools.islice(backgrounds(str(tmp_path / "film.mp4"), 16, 10, start), 9)
  ]
  assert shown(0) == [20, 20, 120, 120, 220, 220, 20, 20, 120]
  assert shown(4) == [220, 220, 20, 20, 120, 120, 220, 220, 20]
  check_background("green")
  with pytest.raises(UserError, match=r"--background=nothing\.png: no such file"):
    check_background("nothing.png")


@pytest.mark.parametrize("suffix,codec", [(".webm", "libvpx-vp9"), (".mov", "prores")])
def test_a_transparent_video_keeps_its_share(tmp_path, suffix, codec):
  import av

  frame = np.zeros((32, 32, 4), np.uint8)
  frame[8:24, 8:24] = (200, 60, 50, 255)
  writer = TransparentWriter(tmp_path / f"out{suffix}", 10, {"title": "clear", "comment": "told"})
  for _ in range(3):
    writer.write(frame)
  assert not (tmp_path / f"out{suffix}").exists()
  writer.finish({})
  with av.open(str(tmp_path / f"out{suffix}")) as file:
    decoder = av.CodecContext.create(codec, "r")  # FFmpeg's own decoder of VP9 leaves the share out
    decoder.extradata = file.streams.video[0].codec_context.extradata
    told = {key.lower(): value for key, value in file.metadata.items()}
    pictures = [p for packet in file.demux(video=0) for p in (decoder.decode(packet) if packet.size else ())]
  assert told["comment"] == "told" and told["title"] == "clear"
  assert len(pictures) == 3
  made = pictures[1].to_ndarray(format="rgba")
  assert made[:6, :6, 3].max() < 12 and made[10:22, 10:22, 3].min() > 243
  assert np.abs(made[12:20, 12:20, :3].astype(int) - (200, 60, 50)).max() < 25
  with pytest.raises(UserError, match=r"ends in \.webm or \.mov"):
    TransparentWriter(tmp_path / "out.mp4", 10, {})
