"""Matting and other backgrounds, for a scene whose alpha is known."""

import itertools

import cv2
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.backdrop import Backdrop
from anchor_jax.inference.backgrounds import open_background
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.studio import make_identity, make_motion, render
from anchor_jax.texture.matte import film_alpha, film_share, person_alpha
from anchor_jax.texture.stored import Texture
from anchor_jax.video.transparent import TransparentWriter
from anchor_jax.video.write import VideoWriter

SIZE = 64


def scene(noise=2.0):
  """(picture, true alpha, the person's colors, pose's body, room): a disc of two colors, a tuft beside it, a shadow."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[: 8 * SIZE, : 8 * SIZE] / (8 * SIZE) - 0.5
  body = x**2 + y**2 < 0.3**2
  tuft = (abs(x) < 0.05) & (y < -0.25) & (y > -0.36)  # hair that is not in the pose
  fine = (body | tuft).astype(np.float32)
  alpha = cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
  row = np.arange(SIZE)[:, None, None] / SIZE
  room = np.broadcast_to(np.array([150, 160, 140]) + 40 * row, (SIZE, SIZE, 3)).astype(np.float32)
  own = np.tile(np.array([200, 60, 50], np.float32), (SIZE, SIZE, 1))
  own[:, SIZE // 2 :] = 40, 50, 120
  own[: SIZE // 4] = 70, 45, 30
  shadow = np.ones((SIZE, SIZE, 1), np.float32)
  shadow[:, 50:54] = 0.8
  picture = alpha[..., None] * own + (1 - alpha[..., None]) * room * shadow + rng.normal(0, noise, own.shape)
  pose = cv2.resize(body.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 0.5
  to_bytes = lambda image: np.clip(np.rint(image), 0, 255).astype(np.uint8)
  return to_bytes(picture), alpha, own, pose, to_bytes(room)


def test_alpha_is_right_for_hair_and_in_a_shadow():
  picture, true, own, pose, room = scene()
  alpha, colors = person_alpha(picture, pose, room, np.ones((SIZE, SIZE), bool))
  assert np.abs(alpha - true).mean() < 0.01 and np.quantile(np.abs(alpha - true), 0.99) < 0.25
  assert alpha[true == 0].max() < 0.2 and alpha[12:20, 31:33].min() > 0.9
  # Nothing of the room, which is brighter than the person, is left in front of another background.
  for background in (0.0, 255.0):
    composed = alpha[..., None] * colors + (1 - alpha[..., None]) * background
    expected = true[..., None] * own + (1 - true[..., None]) * background
    assert np.abs(composed - expected).mean() < 4
    np.testing.assert_array_equal(composed[:4], background)
  unknown, _ = person_alpha(picture, pose, room, np.zeros((SIZE, SIZE), bool))
  assert np.abs(unknown - pose).mean() < 0.02  # where the plate is unknown, alpha is the pose


@pytest.fixture(scope="module")
def filmed():
  """A studio person with strands of hair before a busy wall: picture, alpha, own colors, wall, strands, rough share."""
  identity, fine, size = make_identity(2), 256, 128
  smaller = lambda image: cv2.resize(np.asarray(image, np.float32), (size, size), interpolation=cv2.INTER_AREA)
  drawn = render(identity, make_motion(2), 1.0, fine)
  person = drawn.person_mask.astype(np.float32) / 255
  strands, (rows, columns) = np.zeros((fine, fine), np.uint8), np.nonzero(drawn.person_mask[: fine // 3])
  top, middle, half = int(rows.min()), int(columns.mean()), int(np.ptp(columns)) // 2
  for angle in np.linspace(-1.2, 1.2, 13):
    way = np.array([np.sin(angle), -np.cos(angle)])
    ends = [np.array([middle, top + half]) + way * half * far for far in (0.8, 1.35)]
    cv2.polylines(strands, [np.rint(16 * np.stack(ends)).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
  alone = strands / np.float32(255) * (1 - person)
  hair = np.array(identity.hair, np.float32) * 200
  colors = drawn.frame * person[..., None] + alone[..., None] * hair
  rng = np.random.default_rng(0)
  wall = cv2.resize(rng.integers(90, 230, (8, 8, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
  alpha, colors = smaller(person + alone), smaller(colors)
  picture = colors + (1 - alpha[..., None]) * wall + rng.normal(0, 1.5, colors.shape)
  rough = cv2.GaussianBlur(np.roll(smaller(person), 1, axis=1), (0, 0), 2.0)
  to_bytes = lambda image: np.clip(np.rint(image), 0, 255).astype(np.uint8)
  return to_bytes(picture), alpha, colors, to_bytes(wall), smaller(alone), to_bytes(255 * rough)


@pytest.mark.parametrize("known,error,halo,kept", [(False, 0.15, 20, 0.5), (True, 0.06, 9, 0.8)])
def test_a_film_s_outline_is_soft_with_strands_and_without_halo_or_specks(filmed, known, error, halo, kept):
  picture, true, colors, wall, strands, rough = filmed
  plate = (wall, np.ones(true.shape, bool)) if known else ()
  alpha, own = film_alpha(picture, rough, *plate)
  near = (rough > 12) & (rough < 243) | (strands > 0)
  assert np.abs(alpha - true)[near].mean() < error < 0.7 * np.abs(rough / 255 - true)[near].mean()
  pasted = lambda share, color, background: share[..., None] * color + (1 - share[..., None]) * background
  for background in (0.0, 255.0):
    expected = colors + (1 - true[..., None]) * background
    assert np.abs(pasted(alpha, own, background) - expected)[near].mean() < halo
    assert np.abs(pasted(rough / 255, picture, background) - expected)[near].mean() > 27
  clear = strands > 0.3
  assert alpha[clear].mean() > kept * true[clear].mean() > 2 * rough[clear].mean() / 255
  assert cv2.connectedComponents((alpha > 0.05).astype(np.uint8))[0] == 2  # the room and one person


def test_the_alpha_alone_is_that_of_a_film_whose_room_is_unknown(filmed):
  picture, _, _, _, _, rough = filmed
  np.testing.assert_array_equal(film_share(picture, rough), film_alpha(picture, rough)[0])
  assert np.abs(film_share(picture, rough) - rough / 255).max() > 0.2  # not just the rough share


def room_of(plate):
  """A texture in which only the background plate is known."""
  charts, texels, level = np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8), np.full(plate.shape[:2], 255)
  none = np.zeros((0, *plate.shape), np.uint8)
  return Texture((("none", False),), charts, texels, texels, plate, level.astype(np.uint8), none, none)


def backdrop(name, start=0):
  """A backdrop and the motion that it watches, in which the body moves to the right."""
  _, _, _, pose, room = scene()
  still = lambda n: MotionFrame(
    np.repeat(255 * np.roll(pose, n, 1)[..., None], 3, 2).astype(np.uint8),
    np.zeros((SIZE, SIZE, 1), np.uint8),
    np.zeros((5, 2), np.float32),
  )
  motion = Motion(10.0, FrameSize.of(SIZE), 6, lambda first: iter([still(n) for n in range(first, 6)]))
  watching = Backdrop(open_background(name), room_of(room), start)
  return watching, watching.watch(motion)


def test_frames_get_their_own_bodies_also_in_a_resumed_run():
  picture, _, _, _, _ = scene()
  moved = [np.roll(picture, n, axis=1) for n in range(6)]
  green, motion = backdrop("green")
  list(motion.frames(0))
  frames = [green.behind(frame) for frame in moved]
  assert frames[0].shape == (SIZE, SIZE, 3) and (frames[0][2, 2] == (0, 177, 64)).all()
  later, motion = backdrop("green", start=4)
  list(motion.frames(2))  # a resumed stream starts with frames that it does not output
  for number in (4, 5):
    np.testing.assert_array_equal(later.behind(moved[number]), frames[number])
  clear, motion = backdrop("transparent")
  list(motion.frames(0))
  frame = clear.behind(picture)
  assert frame.shape == (SIZE, SIZE, 4) and frame[2, 2, 3] == 0 and frame[32, 32, 3] == 255
  with pytest.raises(UserError, match="--background needs the background plate"):
    Backdrop(open_background("green"), None)


def test_backgrounds_are_cropped_and_videos_loop(tmp_path):
  cv2.imwrite(str(tmp_path / "wide.png"), np.hstack([np.full((40, 20, 3), v, np.uint8) for v in (0, 90, 90, 0)]))
  still = next(open_background(str(tmp_path / "wide.png")).frames(32, 10, 0))
  assert still.shape == (32, 32, 3) and (still == 90).all()
  with VideoWriter(tmp_path / "film.mp4", 5) as writer:
    for level in (20, 120, 220):
      writer.write(np.full((32, 48, 3), level, np.uint8))
  film = open_background(str(tmp_path / "film.mp4"))
  levels = lambda start: [int(frame.mean().round(-1)) for frame in itertools.islice(film.frames(16, 10, start), 9)]
  assert levels(0) == [20, 20, 120, 120, 220, 220, 20, 20, 120]
  assert levels(4) == [220, 220, 20, 20, 120, 120, 220, 220, 20]
  with pytest.raises(UserError, match=r"--background=nothing\.png: no such file"):
    open_background("nothing.png")


@pytest.mark.parametrize("suffix,codec", [(".webm", "libvpx-vp9"), (".mov", "prores")])
def test_a_transparent_video_has_an_alpha_channel(tmp_path, suffix, codec):
  import av

  frame = np.zeros((32, 32, 4), np.uint8)
  frame[8:24, 8:24] = (200, 60, 50, 255)
  writer = TransparentWriter(tmp_path / f"out{suffix}", 10, {"title": "clear", "comment": "synthetic"})
  for _ in range(3):
    writer.write(frame)
  assert not (tmp_path / f"out{suffix}").exists()
  writer.finish({})
  with av.open(str(tmp_path / f"out{suffix}")) as file:
    decoder = av.CodecContext.create(codec, "r")  # FFmpeg's own VP9 decoder drops the alpha channel
    decoder.extradata = file.streams.video[0].codec_context.extradata
    metadata = {key.lower(): value for key, value in file.metadata.items()}
    pictures = [p for packet in file.demux(video=0) for p in (decoder.decode(packet) if packet.size else ())]
  assert metadata["comment"] == "synthetic" and metadata["title"] == "clear"
  assert len(pictures) == 3
  decoded = pictures[1].to_ndarray(format="rgba")
  assert decoded[:6, :6, 3].max() < 12 and decoded[10:22, 10:22, 3].min() > 243
  assert np.abs(decoded[12:20, 12:20, :3].astype(int) - (200, 60, 50)).max() < 25
  with pytest.raises(UserError, match=r"end in \.webm or \.mov"):
    TransparentWriter(tmp_path / "out.mp4", 10, {})
