"""Body and head with looked-up channels: training, saving and sampling."""

import dataclasses
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import film
from launched import losses
from people import make_measures
from tiny import train_by_drawing

from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import LoRAConfig, RunConfig, run_config
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import build, open_prepared
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.motions import read_motion
from anchor_jax.inference.person import Person, Reference, load, read_reference
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.models.controlnet import fit_stem
from anchor_jax.models.networks import Networks
from anchor_jax.store import run_bundle
from anchor_jax.store.convert import to_adapters, to_diffusers
from anchor_jax.store.weights import initial_weights, write_folder
from anchor_jax.store.workdir import TEXTURE
from anchor_jax.texture.channels import branch_channels, make_pose_channels
from anchor_jax.train import train
from anchor_jax.training.precompute import FilmTextures

SIZE = 32
KINDS = ("coordinates", "atlas", "full")


@pytest.fixture(scope="module")
def make_config(globes, initialized_runs):
  def make(kind, **changes):
    config = initialized_runs("body", steps=2, condition_dropout=0.1, detail_weight=2.0)
    data = dataclasses.replace(config.data, path=str(globes), pose_channels=kind, cache=True)
    refiner = RefinerConfig(23, 2, (8, 8), 4) if kind == "full" else None
    model = dataclasses.replace(config.model, refiner=refiner)
    return dataclasses.replace(config, data=data, **{"model": model, **changes})

  return make


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_config):
  """A body of the kind "full", with a refiner, after two steps that drew its weights."""
  folder = tmp_path_factory.mktemp("runs") / "ana"
  train_by_drawing(make_config("full"), folder)
  return folder


@pytest.fixture(scope="module")
def with_head(tmp_path_factory, workdir, globes, initialized_runs):
  """The same person with a head of the kind "full"."""
  folder = tmp_path_factory.mktemp("runs") / "ana"
  shutil.copytree(workdir, folder)
  config = initialized_runs("head", steps=2, preview_every=2)
  data = dataclasses.replace(config.data, path=str(globes), pose_channels="full")
  train(dataclasses.replace(config, data=data), folder, jax.devices()[:1])
  return folder


@pytest.fixture(scope="module")
def untextured(make_config, tmp_path_factory):
  """A folder of models whose pose branch takes the render alone."""
  networks, weights = initial_weights(make_config(""))
  stem = weights["controlnet"]["controlnet_cond_embedding"]
  weights["controlnet"]["controlnet_cond_embedding"] = jax.tree.map(lambda leaf: leaf + 0.1, stem)
  folder = tmp_path_factory.mktemp("models") / "untextured"
  write_folder(folder, networks, weights, tuple(weights), "float32")
  return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_with_the_output_of_the_network_without_channels(make_config, untextured, kind):
  config = dataclasses.replace(make_config(kind), init=untextured)
  plain = dataclasses.replace(config, data=dataclasses.replace(config.data, pose_channels=""))
  (networks, weights), (old, before) = initial_weights(config), initial_weights(plain)
  assert networks.model.controlnet.conditioning_channels == branch_channels(kind)
  assert old.model.controlnet.conditioning_channels == 3
  rng = np.random.default_rng(0)
  pose = rng.integers(0, 256, (1, 2, 32, 32, 3), np.uint8)
  seen = jnp.asarray(rng.random((1, 2, 32, 32, branch_channels(kind) - 3), np.float32))
  made = jax.jit(networks.embed_pose)(weights, pose, seen)
  assert np.abs(made).max() > 0
  np.testing.assert_array_equal(made, jax.jit(old.embed_pose)(before, pose))


def test_the_workdir_keeps_the_appearance(workdir, make_config, globes, tmp_path):
  person = load(workdir)
  gathered = FilmTextures(open_prepared(globes)).of_person(0).gathered
  person.save(tmp_path / "saved")
  for read in (person, load(tmp_path / "saved")):
    assert read.measures == make_measures() == read_reference(globes).measures
    for field in ("atlas", "coverage", "plate", "key_frames", "key_surfaces"):
      np.testing.assert_array_equal(getattr(read.body.texture, field), getattr(gathered.texture(), field))
    assert read.body.networks.model.controlnet.conditioning_channels == 23
    np.testing.assert_array_equal(*(who.body.weights["refiner"]["conv_out"]["kernel"] for who in (read, person)))
  (tmp_path / "saved" / "body" / TEXTURE).unlink()
  with pytest.raises(UserError, match=r"appearance\.safetensors is missing"):
    load(tmp_path / "saved")


@pytest.mark.slow
@pytest.mark.parametrize("clip_frames", [1, 2])
def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one(make_config, tmp_path, clip_frames):
  config = make_config("full", steps=4, preview_every=4)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, clip_frames=clip_frames))
  train(config, tmp_path / "uninterrupted", jax.devices()[:1])
  train(dataclasses.replace(config, steps=2), tmp_path / "resumed", jax.devices()[:1])
  train(config, tmp_path / "resumed", jax.devices()[:1])
  assert losses(tmp_path / "uninterrupted", "body") == losses(tmp_path / "resumed", "body")
  previews = [(tmp_path / run / "body" / "preview.png").read_bytes() for run in ("uninterrupted", "resumed")]
  assert previews[0] == previews[1]


def lively(person):
  """The person with effective pose branches and refiners, as after long training."""
  stir = lambda scale: lambda leaf: leaf + scale * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  lively = {}
  for name, part in person.parts.items():
    weights = dict(part.weights)
    for network, scale in (("controlnet", 0.3), ("refiner", 0.03)):
      if network in weights:
        weights[network] = jax.tree.map(stir(scale), weights[network])
    lively[name] = dataclasses.replace(part, weights=weights)
  return dataclasses.replace(person, **lively)


@pytest.mark.slow
def test_the_refiner_paints_frames_larger_than_the_networks_see(make_config, globes, tmp_path):
  """Frames have 32 pixels and the networks see 16; the scale is saved with the person."""
  config = make_config("full", preview_every=2)
  refiner = dataclasses.replace(config.model.refiner, scale=2)
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, refiner=refiner))
  train(config, tmp_path / "run", jax.devices()[:1])
  trained, motion = load(tmp_path / "run"), read_motion(globes, size=SIZE, frames=12)
  stem = trained.body.weights["controlnet"]["controlnet_cond_embedding"]["conv_in"]["kernel"]
  for kernel in (trained.body.weights["refiner"]["conv_out"]["kernel"], stem[:, :, 3:]):
    assert np.abs(kernel).max() > 0  # they were initialized to zero
  person = lively(trained)
  assert person.body.networks.model.scale == 2
  frames = np.stack(list(person.animate(motion)))
  assert frames.shape == (12, SIZE, SIZE, 3)
  differ = np.abs(np.diff(frames.astype(int), axis=2)).reshape(12, SIZE, -1, 3).mean(axis=(0, 1, 3))
  assert differ[::2].mean() > 1  # pixels within a square differ: more than upsampling
  np.testing.assert_array_equal(np.stack(list(person.animate(motion, start=7))), frames[7:])
  person.save(tmp_path / "saved")
  np.testing.assert_array_equal(np.stack(list(load(tmp_path / "saved").animate(motion))), frames)


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["workdir", "with_head"])
def test_stream_whole_clip_resume_and_mesh_agree(parts, request, globes):
  person, motion = lively(load(request.getfixturevalue(parts))), read_motion(globes, size=SIZE, frames=12)
  animate = lambda person, **options: np.stack(list(person.animate(motion, with_body=True, **options)))
  frames = animate(person)  # after and before the head repainted the face
  assert np.std(frames[:, 1], axis=0).max() > 2
  assert (np.abs(frames[:, 0].astype(int) - frames[:, 1]).max() > 2) == ("head" in person.parts)
  np.testing.assert_array_equal(animate(person, start=7), frames[7:])
  agree = lambda made: np.abs(made.astype(int) - frames).max() <= 1  # rounding to gray levels
  in_memory = person
  for part in person.parts:
    in_memory = in_memory.with_sampling(part, whole_clip=True)
  assert agree(animate(in_memory))
  if "head" in person.parts:  # that of the look-ups alone is below, that of frames without them in tests/test_person.py
    assert agree(animate(person, mesh=sharding.sampling_mesh(4, 2)))
  # The appearance reaches the pictures.
  for name, part in person.parts.items():
    negative = dataclasses.replace(part.texture, atlas=255 - part.texture.atlas)
    other = animate(dataclasses.replace(person, **{name: dataclasses.replace(part, texture=negative)}))
    assert not agree(other)
    assert name == "body" or np.array_equal(other[:, 1], frames[:, 1])


@pytest.mark.slow
def test_the_head_keeps_the_appearance_too(with_head, globes, tmp_path):
  person, motion = load(with_head), read_motion(globes, size=SIZE, frames=3)
  person.save(tmp_path / "saved")
  for read in (person, load(tmp_path / "saved")):
    np.testing.assert_array_equal(read.head.texture.key_frames, person.body.texture.key_frames)
  bare = dataclasses.replace(motion, frames=lambda first: (f._replace(surface=None) for f in motion.frames(first)))
  with pytest.raises(UserError, match="prepare its video again"):
    next(person.animate(bare))


@pytest.fixture(scope="module")
def models(workdir, tmp_path_factory):
  """The person's networks as a folder of models without a person, like the shipped weights."""
  folder = tmp_path_factory.mktemp("models") / "any"
  to_diffusers(workdir, folder)
  return folder


def test_weights_without_a_person_can_animate_a_prepared_folder(models, workdir, globes, tmp_path, caplog):
  anyone, motion = lively(load(models)), read_motion(globes, size=SIZE, frames=6)
  own = load(workdir).body
  anyone = anyone.with_sampling(**dataclasses.asdict(own.sample))
  assert anyone.body.config.data.pose_channels == "full" and anyone.body.texture is None
  reference = read_reference(globes)
  np.testing.assert_array_equal(reference.texture.atlas, own.texture.atlas)
  own_frames = lively(load(workdir)).animate(motion, Reference(reference.picture))
  at_once = np.stack(list(anyone.animate(motion, str(globes))))
  np.testing.assert_array_equal(at_once, list(own_frames))
  # A picture gives no texture: channels are zero, and the motion needs no surface maps.
  with caplog.at_level(logging.INFO):
    by_picture = list(anyone.animate(motion, reference.picture))
  assert "the person's texture is unknown" in caplog.text
  bare = dataclasses.replace(motion, frames=lambda first: (f._replace(surface=None) for f in motion.frames(first)))
  np.testing.assert_array_equal(list(anyone.animate(bare, reference.picture)), by_picture)
  branch = fit_stem(anyone.body.weights["controlnet"], 3)
  model = dataclasses.replace(
    anyone.body.networks.model,
    controlnet=dataclasses.replace(anyone.body.networks.model.controlnet, conditioning_channels=3),
  )
  plain = dataclasses.replace(
    anyone.body,
    config=RunConfig(sample=own.sample),
    networks=Networks(model),
    weights={**anyone.body.weights, "controlnet": branch},
  )
  np.testing.assert_array_equal(list(Person(plain, None).animate(motion, reference.picture)), by_picture)
  assert np.abs(at_once.astype(int) - by_picture).max() > 2
  anyone.save(tmp_path / "saved")  # complete, although without a person
  assert load(tmp_path / "saved").body.texture is None


def test_clothes_are_those_of_the_given_film(workdir, tmp_path, globes, caplog):
  person, motion = lively(load(workdir)), read_motion(globes, size=SIZE, frames=4)
  negative = [frame._replace(frame=255 - frame.frame) for frame in film(8)]
  build([PosedClip("clip", "ana", 4.0, negative)], tmp_path / "negative", SIZE)
  other = read_reference(tmp_path / "negative")
  assert other.gather is not None
  made = np.stack(list(person.animate(motion, other)))
  own_clothes = np.stack(list(person.animate(motion, Reference(other.picture))))
  assert np.abs(made.astype(int) - own_clothes).max() > 2
  changed = dataclasses.replace(person.body, texture=other.texture)
  np.testing.assert_array_equal(made, list(Person(changed, None).animate(motion, other.picture)))
  build([PosedClip("clip", "ana", 4.0, [f._replace(surface=None) for f in film(4)])], tmp_path / "old", SIZE)
  with caplog.at_level(logging.INFO):
    next(person.animate(motion, tmp_path / "old"))
  assert "prepare it again" in caplog.text
  small = [
    PosedFrame(
      *(leaf[::2, ::2] for leaf in (f.frame, f.pose, f.person_mask, f.face_mask)), f.landmarks / 2, f.surface[::2, ::2]
    )
    for f in film(4)
  ]
  build([PosedClip("clip", "ana", 4.0, small)], tmp_path / "small", SIZE // 2)
  with pytest.raises(UserError, match=r"the appearance has 16 pixels and the motion 32: .* --size=32"):
    next(person.animate(motion, tmp_path / "small"))


@pytest.mark.parametrize("kind,channels,kept", [("", 3, 3), ("atlas", 7, 7), ("coordinates", 9, 3)])
def test_training_can_start_from_a_branch_with_other_channels(models, make_config, kind, channels, kept):
  config = make_config(kind, init=str(models))
  networks, weights = initial_weights(config)
  kernel = lambda weights: weights["controlnet"]["controlnet_cond_embedding"]["conv_in"]["kernel"]
  assert networks.model.controlnet.conditioning_channels == channels == kernel(weights).shape[2]
  np.testing.assert_array_equal(kernel(weights)[:, :, :kept], kernel(load(models).body.weights)[:, :, :kept])
  assert not np.asarray(kernel(weights)[:, :, kept:]).any()


def test_a_refiner_ignores_coordinate_channels(workdir):
  body = load(workdir).body
  pictures, pose = jnp.full((1, SIZE, SIZE, 3), 0.5), jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8)
  weights = {"refiner": jax.tree.map(lambda leaf: jnp.asarray(leaf) + 0.1, body.weights["refiner"])}
  refine = lambda channels: body.networks.refine(weights, pictures, pose, channels)
  np.testing.assert_array_equal(refine(jnp.ones((1, SIZE, SIZE, 6))), refine(None))
  assert np.abs(refine(jnp.ones((1, SIZE, SIZE, 4))) - refine(None)).max() > 0


@pytest.mark.slow
def test_adapters_carry_the_appearance(models, make_config, globes, tmp_path):
  config = make_config("full", init=str(models), lora=LoRAConfig(rank=2, targets=("to_q", "conv1")))
  train(config, tmp_path / "ana", jax.devices()[:1])
  assert to_adapters(tmp_path / "ana", tmp_path / "few") == ["body"]
  trained, adapted = load(tmp_path / "ana").body, load(tmp_path / "few").body
  jax.tree.map(np.testing.assert_array_equal, adapted.weights, trained.weights)
  gathered = FilmTextures(open_prepared(globes)).of_person(0).gathered.texture()
  np.testing.assert_array_equal(adapted.texture.atlas, gathered.atlas)
  np.testing.assert_array_equal(adapted.texture.key_surfaces, gathered.key_surfaces)
  assert adapted.networks.model.controlnet.conditioning_channels == 23
  (tmp_path / "few/body" / TEXTURE).unlink()
  with pytest.raises(UserError, match=r"appearance\.safetensors is missing"):
    load(tmp_path / "few")


def run_bundle_of(person, folder, **arrays):
  """The frames from the script in an exported person's bundle."""
  person.export(folder, ("cpu",))
  np.savez(folder.with_suffix(".npz"), **arrays)
  run_bundle.main(folder, folder.with_suffix(".npz"), folder.with_suffix(".out.npz"), "3")
  return np.load(folder.with_suffix(".out.npz"))["frames"]


@pytest.mark.slow
def test_a_bundle_gives_the_frames_of_the_person(workdir, globes, tmp_path):
  person, motion = lively(load(workdir)), read_motion(globes, size=SIZE, frames=9)
  pose, surfaces = (np.stack([getattr(frame, name) for frame in motion.frames(0)]) for name in ("pose", "surface"))
  expected = np.stack(list(person.with_sampling(whole_clip=True).animate(motion, seed=3)))
  inputs = {"pose": pose, "appearance": person.body.reference_image}
  made = run_bundle_of(person, tmp_path / "ana", surface=surfaces, **inputs)
  assert np.abs(made.astype(int) - expected).max() <= 1
  with np.load(tmp_path / "ana.npz") as arrays, pytest.raises(KeyError, match="surface"):
    np.savez(tmp_path / "less.npz", **{name: arrays[name] for name in ("pose", "appearance")})
    run_bundle.main(tmp_path / "ana", tmp_path / "less.npz", tmp_path / "out.npz")
  other = run_bundle_of(person, tmp_path / "ana", surface=np.roll(surfaces, 8, axis=1), **inputs)
  assert np.abs(other.astype(int) - expected).max() > 2  # the surface map matters


@pytest.mark.slow
def test_a_bundle_without_a_person_needs_no_surface_maps(models, workdir, globes, tmp_path):
  sample, motion = load(workdir).body.sample, read_motion(globes, size=SIZE, frames=5)
  anyone = lively(load(models)).with_sampling(**dataclasses.asdict(sample))
  picture = load(workdir).body.reference_image
  expected = np.stack(list(anyone.with_sampling(whole_clip=True).animate(motion, picture, seed=3)))
  pose = np.stack([frame.pose for frame in motion.frames(0)])
  made = run_bundle_of(anyone, tmp_path / "any", pose=pose, appearance=picture)
  assert np.abs(made.astype(int) - expected).max() <= 1


def test_look_ups_on_eight_devices_equal_those_on_one(workdir, globes):
  texture = load(workdir).body.texture
  surfaces = np.stack([open_prepared(globes).read(i, ("surface",))["surface"] for i in range(8)])
  looked_up = jax.jit(lambda pose_channels, surface: pose_channels(surface))
  one = looked_up(make_pose_channels("full", texture), surfaces)
  mesh = sharding.sampling_mesh(8, 1)
  over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
  tables = jax.device_put(make_pose_channels("full", texture), sharding.replicated(mesh))
  many = looked_up(tables, jax.device_put(surfaces, over))
  assert len(many.sharding.device_set) == 8
  np.testing.assert_array_equal(many, one)


def test_impossible_settings_are_refused_in_one_line(workdir, make_config, untextured, tiny_runs, globes, tmp_path):
  person, motion = load(workdir), read_motion(globes, size=SIZE)
  bare = dataclasses.replace(motion, frames=lambda first: (f._replace(surface=None) for f in motion.frames(first)))
  with pytest.raises(UserError, match="prepare its video again"):
    next(person.animate(bare))
  with pytest.raises(UserError, match="size=32"):
    next(person.animate(dataclasses.replace(motion, size=FrameSize(64, 64))))
  other = make_config("full")
  branch = dataclasses.replace(other.model.controlnet, conditioning_channels=5)
  with pytest.raises(UserError, match="takes 5 channels"):
    initial_weights(dataclasses.replace(other, init="", model=dataclasses.replace(other.model, controlnet=branch)))
  old = tiny_runs("body")
  old = dataclasses.replace(old, data=dataclasses.replace(old.data, pose_channels="coordinates"))
  with pytest.raises(UserError, match="prepare the videos again"):
    train(old, tmp_path / "old")
  with pytest.raises(UserError, match="adapters do not change its stem"):
    train(make_config("full", init=untextured, lora=LoRAConfig(rank=2)), tmp_path / "untextured")
  with pytest.raises(UserError, match="adapters do not change its stem"):
    initial_weights(make_config("coordinates", init=str(workdir), lora=LoRAConfig(rank=2)))
  with pytest.raises(UserError, match=r"data\.pose_channels"):
    run_config({"part": "vae", "data": {"pose_channels": "full"}})
  with pytest.raises(UserError, match="coordinates"):
    run_config({"data": {"pose_channels": "photo"}})
