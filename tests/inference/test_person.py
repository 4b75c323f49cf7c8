"""Animating a person: on one and eight devices, placement of weights, references, and refused input."""

import dataclasses
import itertools
import logging
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parts import make_part
from people import make_posed_frames

from anchor_jax.body.face_crop import crop_image, face_transform
from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.core import sharding as parallel
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import build
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.live import play
from anchor_jax.inference.person import Person, Reference, load, read_reference
from anchor_jax.models.networks import Networks
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.light import StoredLightDecoder, autoencoder_hash, write_light_decoder

POSED = list(make_posed_frames(12))
MOTION_FRAMES = [MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks) for frame in POSED]
MOTION = Motion(10.0, FrameSize.of(32), len(MOTION_FRAMES), lambda first: iter(MOTION_FRAMES[first:]))


@pytest.fixture(scope="module")
def person():
  return Person(make_part("body"), make_part("head"))


@pytest.fixture(scope="module")
def frames(person):
  """(frames, frames before the head) on one device."""
  return tuple(np.stack(side) for side in zip(*person.animate(MOTION, with_body=True), strict=True))


def agree(left, right):
  """Equal except for single gray levels where 1e-5 crosses a rounding boundary."""
  difference = np.abs(np.stack(list(left)).astype(int) - np.stack(list(right)))
  return difference.max() <= 1 and (difference > 0).mean() < 0.01


def with_weights(part, name, change):
  return dataclasses.replace(part, weights={**part.weights, name: change(part.weights[name])})


@pytest.mark.slow
def test_eight_devices_give_the_frames_of_one(person, frames):
  assert np.std(frames[0], axis=0).max() > 2  # they move
  assert np.abs(frames[0].astype(int) - frames[1]).max() > 2  # the head paints
  many = list(zip(*person.animate(MOTION, mesh=parallel.sampling_mesh(4, 2), with_body=True), strict=True))
  assert agree(many[0], frames[0]) and agree(many[1], frames[1])


@pytest.mark.parametrize("changes", [{"tail": "moved_back"}, pytest.param({"tail": "loop"}, marks=pytest.mark.slow)])
def test_every_tail_mode_uses_the_mesh(person, changes, monkeypatch):
  # A conditioning scale that no other test uses; otherwise a cached program without the observer would run.
  alone = Person(person.body, None).with_sampling(conditioning_scale=0.9, **changes)
  mesh, seen = parallel.sampling_mesh(8, 1), []
  denoise = Networks.denoise

  def observed(self, weights, latents, *rest, **more):
    jax.debug.inspect_array_sharding(latents, callback=lambda sharding: seen.append(len(sharding.device_set)))
    return denoise(self, weights, latents, *rest, **more)

  one = list(alone.animate(MOTION)) if changes["tail"] == "loop" else None
  monkeypatch.setattr(Networks, "denoise", observed)
  many = list(alone.animate(MOTION, mesh=mesh))
  assert len(many) == 12 and (one is None or agree(many, one))
  assert seen and set(seen) == {8}


def test_weights_are_placed_once_in_the_compute_type():
  part, mesh = make_part("body", "bfloat16"), parallel.sampling_mesh(4, 2)
  placed = part.placed_weights(mesh)
  assert part.placed_weights(mesh) is placed and part.with_sampling(steps=3).placed_weights(mesh) is placed
  for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
    assert leaf.sharding.is_fully_replicated and leaf.sharding.device_set == set(mesh.devices.flat)
    assert leaf.dtype == (jnp.bfloat16 if path[-1].key in ("kernel", "taps") else jnp.float32)
  assert part.weights["unet"]["conv_in"]["kernel"].dtype == np.float32  # what save and export write
  assert make_part("body").placed_weights()["unet"]["conv_in"]["kernel"].dtype == jnp.float32
  run = jax.jit(part.networks.encode_reference)
  picture = part.reference_image[None]
  np.testing.assert_array_equal(run(part.placed_weights(), picture), run(part.weights, picture))


def test_ticks_transfer_no_weights(person):
  frames = person.animate(MOTION, mesh=parallel.sampling_mesh(4, 2))
  next(frames)
  with jax.transfer_guard_device_to_device("disallow"):
    assert len(list(frames)) == 11


def test_negative_start_is_refused(person):
  for start in (-1, -(10**30)):
    with pytest.raises(UserError, match="give the number of the first frame, an integer from 0"):
      person.animate(MOTION, start=start)


def test_each_part_uses_its_own_null_context(person, frames):
  other = lambda null: null + 1.0
  changed = Person(person.body, with_weights(person.head, "null_context", other))
  heads, bodies = (np.stack(side) for side in zip(*changed.animate(MOTION, with_body=True), strict=True))
  np.testing.assert_array_equal(bodies, frames[1])
  assert (heads != frames[0]).any()
  changed = Person(with_weights(person.body, "null_context", other), None)
  assert (np.stack(list(changed.animate(MOTION))) != frames[1]).any()


def test_reference_image_is_cropped_not_squashed(person):
  body = Person(person.body, None)
  picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  wide = np.zeros((32, 80, 3), np.uint8)
  wide[:, 24:56] = picture
  np.testing.assert_array_equal(list(body.animate(MOTION, wide)), list(body.animate(MOTION, picture)))


def rectangular(motion_size, own_size):
  """The body of a person, with frames of one size, and a motion of another; width and height."""
  body = make_part("body")
  picture = np.random.default_rng(0).integers(0, 256, (*own_size[::-1], 3), np.uint8)
  posed = list(make_posed_frames(5, motion_size[::-1]))
  moves = [MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks) for frame in posed]
  motion = Motion(10.0, FrameSize(*motion_size), len(moves), lambda first: iter(moves[first:]))
  return Person(dataclasses.replace(body, reference_image=picture), make_part("head")), motion


def test_a_portrait_s_upper_square_is_what_the_image_tower_sees(person):
  networks, weights = person.body.networks, person.body.weights
  tall = np.random.default_rng(0).integers(0, 256, (1, 48, 32, 3), np.uint8)
  encode = jax.jit(networks.encode_reference)
  np.testing.assert_allclose(encode(weights, tall), encode(weights, tall[:, :32]), atol=1e-6)


@pytest.mark.slow  # compiles the sampler for another shape
def test_frames_need_not_be_square():
  wide, motion = rectangular((128, 64), (128, 64))
  assert wide.size == FrameSize(128, 64)
  square, _ = rectangular((128, 64), (64, 64))
  assert square.size == 64 and square.with_size((128, 64)).size == FrameSize(128, 64)
  videos = [
    np.stack(list(Person(one.body, None).animate(motion))) for one in (wide, square, square.with_size((128, 64)))
  ]
  for video in videos:
    assert video.shape == (5, 64, 128, 3) and video.std() > 10  # untrained poses move nothing
  assert (videos[0] != videos[1]).any()  # each has its own reference image
  np.testing.assert_array_equal(videos[1], videos[2])


@pytest.mark.slow  # compiles body and head for one and for eight devices
def test_eight_devices_give_the_rectangular_frames_of_one():
  person, motion = rectangular((32, 64), (32, 64))
  one, many = (
    list(zip(*person.animate(motion, mesh=mesh, with_body=True), strict=True))
    for mesh in (None, parallel.sampling_mesh(4, 2))
  )
  assert np.stack(one[0]).shape == (5, 64, 32, 3)
  assert np.abs(np.stack(one[0]).astype(int) - one[1]).max() > 2  # the head paints
  assert agree(many[0], one[0]) and agree(many[1], one[1])


def test_head_uses_the_face_of_the_given_reference(person, frames, tmp_path, caplog):
  build([PosedClip("clip", "ana", 10.0, POSED[:3])], tmp_path / "ana", 32)
  reference = read_reference(tmp_path / "ana")
  to_crop = face_transform(POSED[0].landmarks, 32)
  assert reference.face is not None
  np.testing.assert_array_equal(reference.picture, POSED[0].frame)
  np.testing.assert_array_equal(reference.face, crop_image(POSED[0].frame, to_crop, 32, extend=True))
  own = person.body.reference_image
  with_face = list(person.animate(MOTION, Reference(own, reference.face), with_body=True))
  np.testing.assert_array_equal([body for _, body in with_face], frames[1])
  assert np.abs(np.stack([head for head, _ in with_face]).astype(int) - frames[0]).max() > 0
  with caplog.at_level(logging.INFO):
    np.testing.assert_array_equal(list(person.animate(MOTION, own)), frames[0])
  assert "the head uses the reference from training" in caplog.text


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_seed_out_of_range_is_refused_at_once(person, seed):
  with pytest.raises(UserError, match="from 0 to"):
    person.animate(MOTION, seed=seed)


@pytest.mark.parametrize(
  "changes,message",
  [
    ({"solver": "dim"}, 'Did you mean "ddim"'),
    ({"steps": 0}, "steps"),
    ({"steps": 1001}, "steps"),
    ({"window": 0, "overlap": 0}, "window"),
    ({"window": 4, "overlap": 4}, "overlap"),
    ({"guidance": float("nan")}, "guidance"),
    ({"tail": "raged"}, 'Did you mean "ragged"'),
    ({"stepps": 4}, 'Did you mean "steps"'),
  ],
)
def test_sampling_settings_are_checked_when_given(person, changes, message):
  with pytest.raises(UserError, match=message):
    person.with_sampling(**changes)


def test_sampling_settings_of_one_part(person):
  assert person.with_sampling("head", steps=7).head.sample.steps == 7
  assert person.with_sampling(steps=7).head is person.head
  with pytest.raises(UserError, match='no part "hands"'):
    person.with_sampling("hands", steps=7)


def test_saved_person_loads_bit_for_bit(person, tmp_path):
  person.with_sampling(steps=5).save(tmp_path / "ana")
  loaded = load(str(tmp_path / "ana"))
  assert loaded.head is not None
  for left, right in zip(loaded.parts.values(), person.parts.values(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, left.weights, right.weights)
    np.testing.assert_array_equal(left.reference_image, right.reference_image)
    assert (left.size, left.step, left.networks) == (right.size, right.step, right.networks)
  assert loaded.body.sample.steps == 5 and loaded.head.sample == person.head.sample
  assert load(tmp_path / "ana", head=False).head is None


def test_shipped_weights_need_an_appearance(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "studio").mkdir()  # a local folder of that name makes no difference
  person = load("studio")
  assert person.head is not None and (person.size, person.head.size) == (128, 64)
  assert person.body.sample.window == 8 and person.head.sample.window == 1
  with pytest.raises(UserError, match="give one as appearance"):
    next(person.animate(MOTION))


def test_live_video_has_the_same_frames(person, frames):
  written = []
  timing = play(Person(person.body, None), MOTION, written.append, rate=100.0)
  np.testing.assert_array_equal(written, frames[1])
  assert len(timing.written) == len(MOTION_FRAMES) == len(timing.latencies) and min(timing.latencies) > 0
  assert timing.written[-1] >= len(MOTION_FRAMES) / 100 and timing.to_json()["latency_largest"] == max(timing.latencies)


@pytest.mark.slow
def test_live_head_does_not_wait_for_more_faces(person):
  quick = person.with_sampling(window=1, overlap=0, steps=1)
  expected, written, ahead, taken = list(quick.animate(MOTION)), [], [], []
  motion_frames = lambda first: (taken.append(frame) or frame for frame in MOTION_FRAMES[first:])

  def write(frame):
    written.append(frame)
    ahead.append(len(taken) - 3 - len(written))  # three warm up

  play(quick, dataclasses.replace(MOTION, frames=motion_frames), write, rate=float("inf"))
  assert max(ahead) <= 4  # one frame each in the two parts' samplers and decoders
  np.testing.assert_allclose(np.stack(written).astype(int), expected, atol=1)
  assert np.abs(np.stack(written).astype(int) - list(Person(quick.body, None).animate(MOTION))).max() > 8


def test_body_without_head_holds_no_past_poses(person):
  kept = []

  def motion_frames(first):
    for frame in MOTION_FRAMES[first:]:
      fresh = frame._replace(pose=frame.pose.copy())
      kept.append(weakref.ref(fresh.pose))
      yield fresh
      del fresh

  painted = Person(person.body, None).animate(dataclasses.replace(MOTION, frames=motion_frames))
  assert len(list(itertools.islice(painted, 10))) == 10
  assert sum(pose() is not None for pose in kept[:6]) == 0


def test_attended_frames_share_the_placed_weights(person):
  person.body.placed_weights()
  some = person.with_attended_frames(3)
  assert some.body.networks.denoiser.unet_config.attended_frames == 3 and some.head is person.head
  assert some.body.placed_weights() is person.body.placed_weights()
  with pytest.raises(UserError, match="attended_frames is -1"):
    person.with_attended_frames(-1)


def test_light_decoder_changes_the_pictures_and_is_not_saved(person, frames, tmp_path):
  shape = LightDecoderConfig(latent_channels=2, block_out_channels=(8,), layers_per_block=(0,), patch_size=4)
  params = {
    name: {"kernel": np.ones((3, 3, i, o), np.float32), "bias": np.zeros(o, np.float32)}
    for name, i, o in (("conv_in", 2, 8), ("conv_out", 8, 48))
  }
  config = dataclasses.replace(shape, autoencoder=autoencoder_hash(person.body.weights["vae"]))
  write_light_decoder(tmp_path, StoredLightDecoder(config, params))
  alone = Person(person.body, None)
  assert alone.with_decoder("exact") is alone
  light = alone.with_decoder(tmp_path)
  picture = next(light.animate(MOTION))
  assert np.abs(picture.astype(int) - frames[1][0]).max() > 10
  light.save(tmp_path / "saved")
  assert (
    not (tmp_path / "saved" / "light_decoder").exists() and "light_decoder" not in load(tmp_path / "saved").body.weights
  )
  with pytest.raises(UserError, match="another autoencoder"):
    alone.with_decoder("light")


@pytest.mark.parametrize("part", ["body", "head"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pictures_that_are_not_finite_are_refused(person, part, value):
  damaged = with_weights(getattr(person, part), "vae", lambda vae: jax.tree.map(np.copy, vae))
  damaged.weights["vae"]["post_quant_conv"]["bias"][...] = value
  with pytest.raises(UserError, match=f"the {part}'s frame 0 has values that are not finite") as caught:
    list(dataclasses.replace(person, **{part: damaged}).animate(MOTION))
  assert "\n" not in str(caught.value)


def test_unbounded_guidance_is_refused(person):
  for changes in ({"guidance": 1e308}, {"conditioning_scale": float("nan")}):
    with pytest.raises(UserError, match="between -1e4 and 1e4"):
      Person(person.body, None).with_sampling(**changes)
