"""A person animated: on one device and on eight, where her weights are, her references, and what is refused."""

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
from anchor_jax.data.records import build
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.live import play
from anchor_jax.inference.person import Person, Reference, load, read_reference
from anchor_jax.models.networks import Networks
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.light import StoredLightDecoder, autoencoder_hash, write_light_decoder

POSED = list(make_posed_frames(12))
MOVES = [MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks) for frame in POSED]
MOTION = Motion(10.0, 32, len(MOVES), lambda first: iter(MOVES[first:]))


@pytest.fixture(scope="module")
def person():
  return Person(make_part("body"), make_part("head"))


@pytest.fixture(scope="module")
def frames(person):
  """(frames, frames before the head) on one device."""
  return tuple(np.stack(side) for side in zip(*person.animate(MOTION, with_body=True), strict=True))


def agree(left, right):
  """Equal but for single grey levels where 1e-5 crosses a rounding boundary."""
  difference = np.abs(np.stack(list(left)).astype(int) - np.stack(list(right)))
  return difference.max() <= 1 and (difference > 0).mean() < 0.01


def with_weights(part, name, change):
  return dataclasses.replace(part, weights={**part.weights, name: change(part.weights[name])})


@pytest.mark.slow
def test_body_and_head_on_eight_devices_give_the_frames_of_one(person, frames):
  assert np.std(frames[0], axis=0).max() > 2  # they move
  assert np.abs(frames[0].astype(int) - frames[1]).max() > 2  # the head paints
  many = list(zip(*person.animate(MOTION, mesh=parallel.sampling_mesh(4, 2), with_body=True), strict=True))
  assert agree(many[0], frames[0]) and agree(many[1], frames[1])


@pytest.mark.parametrize("changes", [{"tail": "moved_back"}, pytest.param({"tail": "loop"}, marks=pytest.mark.slow)])
def test_every_way_to_sample_uses_the_mesh(person, changes, monkeypatch):
  # A strength of the pose that no other test has: else a program compiled before, which observes nothing, would run.
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


def test_ticks_send_no_weights(person):
  frames = person.animate(MOTION, mesh=parallel.sampling_mesh(4, 2))
  next(frames)
  with jax.transfer_guard_device_to_device("disallow"):
    assert len(list(frames)) == 11


def test_the_first_frame_wanted_is_a_whole_number(person):
  for start in (-1, -(10**30)):
    with pytest.raises(UserError, match="the first frame wanted is a whole number"):
      person.animate(MOTION, start=start)


def test_each_part_has_its_own_null_context(person, frames):
  other = lambda null: null + 1.0
  changed = Person(person.body, with_weights(person.head, "null_context", other))
  heads, bodies = (np.stack(side) for side in zip(*changed.animate(MOTION, with_body=True), strict=True))
  np.testing.assert_array_equal(bodies, frames[1])
  assert (heads != frames[0]).any()
  changed = Person(with_weights(person.body, "null_context", other), None)
  assert (np.stack(list(changed.animate(MOTION))) != frames[1]).any()


def test_an_appearance_is_cropped_not_squashed(person):
  body = Person(person.body, None)
  picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  wide = np.zeros((32, 80, 3), np.uint8)
  wide[:, 24:56] = picture
  np.testing.assert_array_equal(list(body.animate(MOTION, wide)), list(body.animate(MOTION, picture)))


def test_the_head_takes_the_face_of_the_given_appearance(person, frames, tmp_path, caplog):
  build([PosedClip("clip", "ana", 10.0, POSED[:3])], tmp_path / "ana", 32)
  given = read_reference(tmp_path / "ana")
  to_crop = face_transform(POSED[0].landmarks, 32)
  assert given.face is not None
  np.testing.assert_array_equal(given.picture, POSED[0].frame)
  np.testing.assert_array_equal(given.face, crop_image(POSED[0].frame, to_crop, 32, extend=True))
  own = person.body.reference_image
  with_face = list(person.animate(MOTION, Reference(own, given.face), with_body=True))
  np.testing.assert_array_equal([body for _, body in with_face], frames[1])
  assert np.abs(np.stack([head for head, _ in with_face]).astype(int) - frames[0]).max() > 0
  with caplog.at_level(logging.INFO):
    np.testing.assert_array_equal(list(person.animate(MOTION, own)), frames[0])
  assert "the head keeps its own reference" in caplog.text


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_a_seed_out_of_range_is_refused_at_once(person, seed):
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


def test_other_settings_for_one_part(person):
  assert person.with_sampling("head", steps=7).head.sample.steps == 7
  assert person.with_sampling(steps=7).head is person.head
  with pytest.raises(UserError, match='no part "hands"'):
    person.with_sampling("hands", steps=7)


def test_a_saved_person_is_read_back_bit_for_bit(person, tmp_path):
  person.with_sampling(steps=5).save(tmp_path / "ana")
  again = load(str(tmp_path / "ana"))
  assert again.head is not None
  for left, right in zip(again.parts.values(), person.parts.values(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, left.weights, right.weights)
    np.testing.assert_array_equal(left.reference_image, right.reference_image)
    assert (left.size, left.step, left.networks) == (right.size, right.step, right.networks)
  assert again.body.sample.steps == 5 and again.head.sample == person.head.sample
  assert load(tmp_path / "ana", head=False).head is None


def test_the_shipped_weights_know_no_person(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "studio").mkdir()  # somebody's folder: the word means the same everywhere
  person = load("studio")
  assert person.head is not None and (person.size, person.head.size) == (128, 64)
  assert person.body.sample.window == 8 and person.head.sample.window == 1
  with pytest.raises(UserError, match="give one as appearance"):
    next(person.animate(MOTION))


def test_live_video_has_the_frames_of_any_other(person, frames):
  written = []
  timing = play(Person(person.body, None), MOTION, written.append, rate=100.0)
  np.testing.assert_array_equal(written, frames[1])
  assert len(timing.written) == len(MOVES) == len(timing.latencies) and min(timing.latencies) > 0
  assert timing.written[-1] >= len(MOVES) / 100 and timing.to_json()["latency_largest"] == max(timing.latencies)


@pytest.mark.slow
def test_a_head_that_is_live_waits_for_no_other_faces(person):
  quick = person.with_sampling(window=1, overlap=0, steps=1)
  expected, written, ahead, taken = list(quick.animate(MOTION)), [], [], []
  moves = lambda first: (taken.append(move) or move for move in MOVES[first:])

  def write(frame):
    written.append(frame)
    ahead.append(len(taken) - 3 - len(written))  # three warm up

  play(quick, dataclasses.replace(MOTION, frames=moves), write, rate=float("inf"))
  assert max(ahead) <= 4  # the two parts' noise and pictures, one each
  np.testing.assert_allclose(np.stack(written).astype(int), expected, atol=1)
  assert np.abs(np.stack(written).astype(int) - list(Person(quick.body, None).animate(MOTION))).max() > 8


def test_a_body_alone_remembers_no_pose_that_is_over(person):
  kept = []

  def moves(first):
    for move in MOVES[first:]:
      fresh = move._replace(pose=move.pose.copy())
      kept.append(weakref.ref(fresh.pose))
      yield fresh
      del fresh

  painted = Person(person.body, None).animate(dataclasses.replace(MOTION, frames=moves))
  assert len(list(itertools.islice(painted, 10))) == 10
  assert sum(pose() is not None for pose in kept[:6]) == 0


def test_frames_that_attend_to_some_frames(person):
  person.body.placed_weights()
  some = person.with_attended_frames(3)
  assert some.body.networks.denoiser.unet_config.attended_frames == 3 and some.head is person.head
  assert some.body.placed_weights() is person.body.placed_weights()
  with pytest.raises(UserError, match="attended_frames is -1"):
    person.with_attended_frames(-1)


def test_a_light_decoder_paints_other_pictures_of_the_same_latents_and_is_not_saved(person, frames, tmp_path):
  shape = LightDecoderConfig(latent_channels=2, block_out_channels=(8,), layers_per_block=(0,), patch_size=4)
  params = {
    name: {"kernel": np.ones((3, 3, i, o), np.float32), "bias": np.zeros(o, np.float32)}
    for name, i, o in (("conv_in", 2, 8), ("conv_out", 8, 48))
  }
  mine = dataclasses.replace(shape, autoencoder=autoencoder_hash(person.body.weights["vae"]))
  write_light_decoder(tmp_path, StoredLightDecoder(mine, params))
  alone = Person(person.body, None)
  assert alone.with_decoder("exact") is alone
  light = alone.with_decoder(tmp_path)
  made = next(light.animate(MOTION))
  assert np.abs(made.astype(int) - frames[1][0]).max() > 10
  light.save(tmp_path / "saved")
  assert (
    not (tmp_path / "saved" / "light_decoder").exists() and "light_decoder" not in load(tmp_path / "saved").body.weights
  )
  with pytest.raises(UserError, match="another autoencoder"):
    alone.with_decoder("light")


@pytest.mark.parametrize("part", ["body", "head"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pictures_that_are_not_finite_are_refused_before_they_are_bytes(person, part, value):
  damaged = with_weights(getattr(person, part), "vae", lambda vae: jax.tree.map(np.copy, vae))
  damaged.weights["vae"]["post_quant_conv"]["bias"][...] = value
  with pytest.raises(UserError, match=f"the {part}'s frame 0 has values that are no finite numbers") as caught:
    list(dataclasses.replace(person, **{part: damaged}).animate(MOTION))
  assert "\n" not in str(caught.value)


def test_a_guidance_without_bounds_is_refused(person):
  for changes in ({"guidance": 1e308}, {"conditioning_scale": float("nan")}):
    with pytest.raises(UserError, match="between -1e4 and 1e4"):
      Person(person.body, None).with_sampling(**changes)
