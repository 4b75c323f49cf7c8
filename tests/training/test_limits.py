"""What a run refuses before it reads weights, and the profiler trace, written however the run ends."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from anchor_jax.config.run import MeshConfig, ModelConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.files.shipped import shipped
from anchor_jax.models.networks import Networks
from anchor_jax.train import _without_rectangle, train
from anchor_jax.training import compiling, loop
from anchor_jax.training.batches import batch_shapes, check_requested_model, check_sizes
from anchor_jax.training.compiling import check_step_memory, out_of_memory_as_user_error
from anchor_jax.training.loss import make_loss
from anchor_jax.training.report import Trace
from anchor_jax.training.step import training_mesh


def changed(config, **data):
  return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def test_wrong_settings_are_refused_before_weights_are_read(tiny_run, tmp_path, monkeypatch):
  def read(config):
    raise AssertionError("weights were read")

  monkeypatch.setattr(loop, "initial_weights", read)
  monkeypatch.setattr(compiling, "host_memory", lambda: 10**9)
  (tmp_path / "file").write_text("")
  config = tiny_run("body")
  for run, workdir, message in (
    (changed(config, path="nowhere"), tmp_path, "no prepared folder"),
    (changed(config, batch_size=2**20), tmp_path, "lower config.data.batch_size"),
    (changed(tiny_run("head"), crop=15), tmp_path, "use a multiple of 8"),
    (changed(tiny_run("head", init="studio"), crop=15), tmp_path, "15 pixels don't fit"),
    (changed(tiny_run("head", init=str(shipped())), crop=15), tmp_path, "15 pixels don't fit"),
    (config, tmp_path / "file", "cannot write"),
  ):
    with pytest.raises(UserError, match=message):
      train(run, workdir, jax.devices()[:1])


def test_sizes_that_init_would_override_are_refused(initialized_runs):
  config = initialized_runs("body")
  check_requested_model(config, config.model)
  check_requested_model(dataclasses.replace(config, model=ModelConfig()), config.model)  # defaults request nothing
  for refiner in (None, "init"):
    check_requested_model(config, dataclasses.replace(config.model, refiner=refiner))
  wider = dataclasses.replace(config.model.vae, latent_channels=16)
  requested = dataclasses.replace(config, model=dataclasses.replace(config.model, vae=wider))
  message = (
    r"config\.model\.vae\.latent_channels is 16 and the weights at config\.init=.* have 2: leave that setting out"
  )
  with pytest.raises(UserError, match=message):
    check_requested_model(requested, config.model)
  check_requested_model(dataclasses.replace(requested, init=""), config.model)
  schedule = dataclasses.replace(config.model.schedule, beta_end=0.5)
  requested = dataclasses.replace(config, model=dataclasses.replace(config.model, schedule=schedule))
  with pytest.raises(UserError, match=r"schedule\.beta_end is 0\.5"):
    check_requested_model(requested, config.model)
  check_requested_model(dataclasses.replace(requested, zero_snr=True), config.model)
  remat = dataclasses.replace(config.model.unet, remat=True)  # a run's own choice
  check_requested_model(dataclasses.replace(config, model=dataclasses.replace(config.model, unet=remat)), config.model)


def test_frames_need_not_be_square(tiny_runs):
  for part in ("body", "head"):
    config = tiny_runs(part)
    check_sizes(config, FrameSize(64, 32))
    picture = (32, 64) if part == "body" else (16, 16)  # face crops are square
    shapes = batch_shapes(config, FrameSize(64, 32))
    assert shapes["target"]["pose"].shape == (8, *picture, 3)
    networks = Networks(config.model)
    weights = jax.eval_shape(networks.init, jax.random.key(0))
    loss = make_loss(config, networks)
    draws = jax.eval_shape(loss.draw, shapes, jax.random.key(0))
    assert draws["noise"].shape == (8, 1, picture[0] // 4, picture[1] // 4, 2)
    value, _ = jax.eval_shape(lambda *inputs, loss=loss: loss.value(*inputs, 1), weights, weights, shapes, draws)
    assert value.shape == ()
  with pytest.raises(UserError, match="pictures of 64x36 pixels don't fit these networks: use a multiple of 8"):
    check_sizes(tiny_runs("body"), FrameSize(64, 36))
  assert changed(tiny_runs("body"), size=(640, 384)).data.frame_size == (640, 384)
  rest, size = _without_rectangle(["train", "--config.data.size=640x384", "--config.steps=1"])
  assert rest == ["train", "--config.steps=1"] and size == (640, 384)
  assert _without_rectangle(["train", "--config.data.size=256"]) == (["train", "--config.data.size=256"], None)
  with pytest.raises(UserError, match="size is \\(640, 0\\)"):
    changed(tiny_runs("body"), size=(640, 0))


def test_accumulation_parts_must_fit_the_mesh(tiny_run):
  config = tiny_run("body", mesh=MeshConfig(data=4, fsdp=2))
  for parts, size in ((1, 8), (2, 16)):
    optimizer = dataclasses.replace(config.optimizer, accumulate=parts)
    training_mesh(dataclasses.replace(changed(config, batch_size=size), optimizer=optimizer))
  with pytest.raises(UserError, match="batch_size 8 must be a multiple of 16"):
    training_mesh(dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, accumulate=2)))


def test_a_step_beyond_the_memory_names_the_settings_to_lower(tiny_run, monkeypatch):
  compiled = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((1000, 1000), jnp.float32)).compile()
  mesh = sharding.make_mesh(MeshConfig(data=1).sizes, jax.devices()[:1])
  config = tiny_run("body")
  assert compiling.step_memory(compiled) >= 8_000_000
  check_step_memory(compiled, config, mesh)
  monkeypatch.setattr(compiling, "host_memory", lambda: 7_000_000)
  advice = r"lower config\.data\.batch_size, which is 8, or raise config\.optimizer\.accumulate, which is 1"
  with pytest.raises(UserError, match=advice):
    check_step_memory(compiled, config, mesh)
  with pytest.raises(UserError, match=advice), out_of_memory_as_user_error(config):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")
  with pytest.raises(jax.errors.JaxRuntimeError), out_of_memory_as_user_error(config):
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize("steps,end", [(1, 1), (2, 2), (4, 4), (9, 9), (9, 4)])
def test_a_trace_is_written_for_any_number_of_steps(tmp_path, steps, end):
  """With `end` below `steps` the run stops early."""
  calls, step = [], jax.jit(lambda x: x + 1)
  with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError):
    patch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("start"))
    patch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    with Trace(tmp_path, 0, steps) as trace:
      for number in range(1, end + 1):
        trace.before(number)
        calls.append(number)
        trace.after(number, step(jnp.zeros(2)))
      raise KeyError
  first = {1: 1, 2: 1, 4: 2, 9: 3}[steps]
  assert calls.index("start") == first - 1 and calls.count("stop") == 1
  assert calls[calls.index("stop") - 1] == min(first + 2, end)


def test_importing_the_command_does_not_import_jax():
  program = "import anchor_jax.train, sys; print({'jax', 'grain', 'orbax', 'tensorflow_datasets'} & set(sys.modules))"
  assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
