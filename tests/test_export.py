"""Bundles: what they compute without this package, and which damage they report. The networks are tiny."""

import dataclasses
import hashlib
import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import film
from tiny import tiny_model, weight_shapes, write_untrained

from anchor_jax import export
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import DataConfig, RunConfig, SampleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import build
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import TAILS, WindowRule, plan_clip
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.motions import read_motion
from anchor_jax.inference.person import Part, Person, load
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.store import run_bundle
from anchor_jax.store.bundle import _sampling

PLATFORMS = ("cpu", "cuda", "tpu")
SAMPLE = SampleConfig("dpm++2m", 3, window=4, overlap=1, guidance=1.5, conditioning_scale=1.2)
# Runs a script with only those modules importable that it may need.
ALONE = """
import runpy, sys
class Hide:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in {"anchor_jax", "flax", "optax", "orbax", "cv2", "jaxtyping", "ml_collections", "absl"}:
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def person(tmp_path_factory):
  """A workdir with a body, with temporal layers, and a head; no weight is zero."""
  workdir, rng = tmp_path_factory.mktemp("person"), np.random.default_rng(0)
  for part, shape in (("body", (32, 64)), ("head", (16, 16))):  # frames need not be square
    model = tiny_model(inpaint=part == "head")
    if part == "body":
      unet = dataclasses.replace(model.unet, temporal_kernel=3, temporal_attention=True)
      model = dataclasses.replace(model, unet=unet)
    config = RunConfig(part, model=model, sample=SAMPLE)
    shapes = weight_shapes(Networks(config.model))
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, shapes)
    write_untrained(workdir / part, config, weights, rng.integers(0, 256, (*shape, 3), np.uint8))
  return workdir


@pytest.fixture(scope="module")
def bundle(person, tmp_path_factory):
  folder = tmp_path_factory.mktemp("bundles") / "ana"
  assert load(person).export(folder, PLATFORMS) == ["body", "head"]
  return folder


def test_the_script_generates_the_same_clip_as_the_library(tmp_path, person, bundle):
  body = load(person).body
  networks, pose = body.networks, np.random.default_rng(1).integers(0, 256, (6, 32, 64, 3), np.uint8)
  np.savez(tmp_path / "in.npz", pose=pose, appearance=body.reference_image)
  np.testing.assert_array_equal(np.load(bundle / "body/appearance.npy"), body.reference_image)
  run = subprocess.run(
    [sys.executable, "-I", "-c", ALONE.replace("sys.argv[0]", "sys.argv.pop(1)")]
    + [str(path) for path in (bundle / "generate.py", tmp_path / "in.npz", tmp_path / "out.npz")]
    + ["3"],
    cwd=tmp_path, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert run.returncode == 0, run.stderr
  generated = np.load(tmp_path / "out.npz")

  @jax.jit
  def library(weights, noise, pose, appearance):
    context = networks.encode_reference(weights, appearance[None])[0]
    denoise = lambda *arguments: networks.denoise(weights, *arguments, conditioning_scale=SAMPLE.conditioning_scale)
    inputs = FrameInputs(networks.embed_pose(weights, pose[None])[0])
    noise, null = jnp.broadcast_to(noise, (6, 8, 16, 2)), weights["null_context"]
    latents = Sampler.of(SAMPLE, networks.model.schedule).clip(denoise, noise, inputs, context, null)
    return latents, networks.decode(weights, latents)

  noise = jax.random.normal(jax.random.split(jax.random.key(3))[0], (8, 16, 2))
  latents, frames = library(body.weights, noise, pose, body.reference_image)
  np.testing.assert_allclose(generated["latents"], latents, atol=1e-5, rtol=0)
  assert np.abs(latents - latents[0]).max() > 0.01  # the pose has an effect
  assert generated["frames"].dtype == np.uint8 and np.abs(generated["frames"] - np.asarray(frames) * 255).max() < 0.51


@pytest.mark.parametrize("tail", TAILS)
def test_the_script_plans_the_same_windows_as_the_library(tail):
  for window, overlap in ((4, 1), (5, 3), (1, 0), (16, 4)):
    rule = WindowRule(window, overlap, tail)
    body = {"window": window, "overlap": overlap, "tail": tail, "taper": [1.0] * window}
    for length in (*range(1, 20), 37):
      plan = plan_clip(rule, length)
      for ours, its in zip((plan.frames, plan.mask, plan.weights), run_bundle.plan_windows(body, length), strict=True):
        np.testing.assert_array_equal(ours, its)


def test_the_script_is_short_and_imports_only_its_dependencies(bundle):
  lines = (bundle / "generate.py").read_text().splitlines()
  imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
  assert len(lines) <= 110  # four of them check for finite numbers, fifteen for overwriting
  assert imported <= {"jax", "numpy", "safetensors"} | sys.stdlib_module_names


def test_every_program_loads_for_every_platform_and_any_batch(bundle):
  config = json.loads((bundle / "config.json").read_text())
  assert config["made_by"]["jax"] == jax.__version__ and {"anchor_jax", "jaxlib", "numpy"} <= config["made_by"].keys()
  files = sorted(bundle.glob("*/*.stablehlo"))
  assert [path.stem for path in files if path.parent.name == "head"] == [
    *("decoder", "denoiser", "encoder", "image_tower", "inpainting", "pose_stem"),
  ]
  for path in files:
    data = path.read_bytes()
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == PLATFORMS
    assert str(exported.out_avals[0].shape[0]) == "batch"
    assert str(pathlib.Path(__file__).parents[1]).encode() not in data  # no local paths


def test_the_head_s_inpainting_condition_is_the_same_as_the_library_s(person, bundle):
  head = load(person).head
  assert head is not None
  rng = np.random.default_rng(2)
  pixels, keep = rng.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32), rng.random((3, 16, 16)) > 0.5
  program = jax.export.deserialize(bytearray((bundle / "head/inpainting.stablehlo").read_bytes()))
  weights = run_bundle.load_file(bundle / "head/weights.safetensors")
  library = jax.jit(head.networks.inpainting_channels)(head.weights, pixels, keep)
  np.testing.assert_allclose(jax.jit(program.call)(weights, pixels, keep), library, atol=1e-5)


def test_a_schedule_with_zero_snr_is_written_without_a_warning(recwarn):
  """Its alpha is 0 at the first step, and 1 / alpha is not needed for v-prediction."""
  model = tiny_model()
  schedule = dataclasses.replace(model.schedule, rescale_betas_zero_snr=True)
  model = dataclasses.replace(model, schedule=schedule)
  networks, config = Networks(model), RunConfig("body", model=model, sample=SAMPLE)
  null = {"null_context": np.zeros((model.image_encoder.tokens, model.unet.cross_attention_dim), np.float32)}
  tables = _sampling(Part(config, networks, null, 1, None))["solver"]
  assert not recwarn.list
  solver = make_solver(SAMPLE.solver, schedule, SAMPLE.steps)
  assert tables["clean_from_sample"][0] == 0 and tables["clean_from_prediction"][0] == -1
  assert tables["clean_from_sample"] == np.asarray(solver.alpha, np.float32).tolist()
  assert tables["clean_from_prediction"] == (-np.asarray(solver.sigma, np.float32)).tolist()


def settings(folder, **changes):
  """Changes config.json and its hash."""
  config = {**json.loads((folder / "config.json").read_text()), **changes}
  del config["sha256"]
  config["sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
  (folder / "config.json").write_text(json.dumps(config))


def replace(path, old, new):
  data = path.read_bytes()
  assert old in data
  path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
  "damage,message",
  [
    (lambda b: (b / "config.json").unlink(), "config.json"),
    (lambda b: (b / "config.json").write_text("{"), "Expecting"),
    (lambda b: replace(b / "config.json", b'"overlap": 1', b'"overlap": 2'), "config.json is damaged"),
    (lambda b: settings(b, format="anchor_jax bundle 2"), 'is not a "anchor_jax bundle 1"'),
    (lambda b: settings(b, jax_at_least=[99, 0, 0]), "too old"),
    (lambda b: (b / "body/weights.safetensors").unlink(), "weights.safetensors"),
    (lambda b: replace(b / "body/weights.safetensors", b"\0\0", b"\0\1"), "weights.safetensors is damaged"),
    (lambda b: (b / "body/decoder.stablehlo").write_bytes(b""), "decoder.stablehlo"),
    (lambda b: shutil.copy(b / "body/encoder.stablehlo", b / "body/decoder.stablehlo"), "decoder.stablehlo is damaged"),
    (lambda b: None, "pictures must be [32, 64, 3]"),
    ("noise", "noise must be finite numbers"),
    ("weights", "not finite: use other noise"),
  ],
)
def test_damaged_bundles_and_inputs_are_reported_in_one_line(tmp_path, bundle, monkeypatch, capsys, damage, message):
  shutil.copytree(bundle, tmp_path / "copy")
  side, noise = 8 if callable(damage) else 32, np.zeros((8, 16, 2), np.float32)
  if damage == "noise":
    noise[0, 0, 0] = np.nan
  elif damage == "weights":
    monkeypatch.setattr("jax.device_put", lambda tree: {name: leaf * np.float32(np.inf) for name, leaf in tree.items()})
  else:
    damage(tmp_path / "copy")
  arrays = {"pose": np.zeros((2, side, 2 * side, 3), np.uint8), "appearance": np.zeros((32, 64, 3), np.uint8)}
  np.savez(tmp_path / "in.npz", **arrays, noise=noise)
  script = str(tmp_path / "copy" / "generate.py")
  monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")])
  with pytest.raises(SystemExit) as exited:
    runpy.run_path(script, run_name="__main__")
  error = capsys.readouterr().err.strip()
  assert exited.value.code == 2 and error.startswith("error: ") and message in error and "\n" not in error
  assert not (tmp_path / "out.npz").exists()


def test_invalid_exports_are_refused_before_any_work(tmp_path, person):
  (tmp_path / "film.mp4").write_text("")
  for checkpoint, output, platforms, message in (
    (person, tmp_path / "new", ("cpu", "cudaa"), 'Did you mean "cuda"'),
    (person, tmp_path / "new", (), "name each one once"),
    (person, tmp_path, ("cpu",), "which was not written by this command"),
    (person, tmp_path / "film.mp4", ("cpu",), "is a file"),
    (tmp_path / "nobody", tmp_path / "new", ("cpu",), "no folder"),
    (tmp_path, tmp_path / "new", ("cpu",), "no trained part"),
  ):
    with pytest.raises(UserError, match=message):
      load(checkpoint).export(output, platforms)
  assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.slow
def test_a_bundle_uses_the_film_that_it_was_exported_with(tmp_path):
  """As `animate` does: texture and reference image of the film, for a person trained without one."""
  rng, model = np.random.default_rng(0), tiny_model()
  controlnet = dataclasses.replace(model.controlnet, conditioning_channels=23)
  model = dataclasses.replace(model, controlnet=controlnet, refiner=RefinerConfig(23, 2, (8, 8), 4))
  networks, config = (
    Networks(model),
    RunConfig("body", model=model, sample=SAMPLE, data=DataConfig(pose_channels="full")),
  )
  shapes = weight_shapes(networks)
  weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, shapes)
  anyone = Person(Part(config, networks, weights, 1, None), None)
  frames = list(film(9))
  negative = [frame._replace(frame=255 - frame.frame) for frame in frames]
  for name, clip in (("ana", frames), ("bea", negative)):
    build([PosedClip("clip", name, 4.0, clip)], tmp_path / name, 32)
  build([PosedClip("clip", "cleo", 4.0, film(4, 64))], tmp_path / "cleo", 64)
  motion = read_motion(tmp_path / "ana", size=32, frames=6)
  moves = list(motion.frames(0))
  arrays = {"pose": np.stack([m.pose for m in moves]), "surface": np.stack([m.surface for m in moves])}
  np.savez(tmp_path / "in.npz", **arrays)
  generated = {}
  for name in ("ana", "bea"):
    anyone.export(tmp_path / "bundle", ("cpu",), tmp_path / name)
    run_bundle.main(tmp_path / "bundle", tmp_path / "in.npz", tmp_path / "out.npz", "3")
    generated[name] = np.load(tmp_path / "out.npz")["frames"].astype(int)
    expected = np.stack(list(anyone.with_sampling(whole_clip=True).animate(motion, tmp_path / name, seed=3)))
    assert np.abs(generated[name] - expected).max() <= 1
  assert np.abs(generated["ana"] - generated["bea"]).max() > 2
  with pytest.raises(UserError, match="appearance has 64 pixels and the body 32"):
    anyone.export(tmp_path / "other", ("cpu",), tmp_path / "cleo")
  assert not (tmp_path / "other").exists()
  anyone.export(tmp_path / "bundle", ("cpu",))  # no person: the script needs a reference image
  with pytest.raises(FileNotFoundError, match=r"appearance\.npy"):
    run_bundle.main(tmp_path / "bundle", tmp_path / "in.npz", tmp_path / "out.npz", "3")


def test_the_appearance_flag_replaces_the_reference_image(tmp_path, person, monkeypatch, capsys):
  monkeypatch.setattr(
    sys, "argv", ["export", f"--checkpoint={person}", f"--output={tmp_path / 'b'}", "--appearance=no"]
  )
  with pytest.raises(SystemExit):
    export.main()
  assert "no picture" in capsys.readouterr().err and not (tmp_path / "b").exists()
  cv2.imwrite(str(tmp_path / "ana.png"), np.full((40, 48, 3), 7, np.uint8))
  flags = [f"--appearance={tmp_path / 'ana.png'}", "--platforms=cpu"]
  monkeypatch.setattr(sys, "argv", ["export", f"--checkpoint={person}", f"--output={tmp_path / 'b'}", *flags])
  written = []  # without exporting programs, which takes 8 seconds
  monkeypatch.setattr("anchor_jax.inference.person.write_bundle", lambda folder, parts, *_: written.append(parts))
  export.main()
  (parts,) = written
  assert parts["body"].reference_image.shape == (32, 64, 3) and (parts["body"].reference_image == 7).all()
  np.testing.assert_array_equal(parts["head"].reference_image, load(person).head.reference_image)


def test_the_script_overwrites_no_other_files(tmp_path):
  source, target = tmp_path / "in.npz", tmp_path / "out.npz"
  np.savez(source, pose=np.zeros(1))
  os.link(source, tmp_path / "same.npz")
  os.link(source, tmp_path / "late.partial.npz")
  for name, message in (
    ("in.npz", "would overwrite the input"),
    ("same.npz", "would overwrite the input"),
    ("late.npz", "would overwrite the input"),
    ("film.mp4", r"ends in \.npz"),
  ):
    with pytest.raises(ValueError, match=message):
      run_bundle.check_target(source, tmp_path / name)
  assert run_bundle.check_target(source, target) == tmp_path / "out.partial.npz"
  np.savez(target, pose=np.zeros(1))
  with pytest.raises(ValueError, match="was not written by this script"):
    run_bundle.check_target(source, target)
  np.savez(target, frames=np.zeros(1), latents=np.zeros(1))
  run_bundle.check_target(source, target)
