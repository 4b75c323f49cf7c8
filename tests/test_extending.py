"""A stranger's test: the code in docs/extending.md adds a solver, a pose source, a loss term and a network.

A section's first block is a file, the second a line for a table. Nothing else is changed here.
"""

import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from people import make_track
from tiny import drawn_weights, tiny_model

import anchor_jax as aj
from anchor_jax.config import run
from anchor_jax.config.run import RunConfig, SampleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.diffusion import solvers
from anchor_jax.formats import registry
from anchor_jax.formats.diffusers import load_model, save_model
from anchor_jax.inference import motions
from anchor_jax.models.networks import Networks
from anchor_jax.training import loss

PAGE = Path(__file__).resolve().parents[1] / "docs/extending.md"


def section(title: str) -> tuple[types.ModuleType, str]:
  """The file of a section, imported, and its line."""
  text = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
  (file,), (line,) = (re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL) for kind in ("python", "text"))
  module = types.ModuleType(f"added_{title.rsplit(maxsplit=1)[-1]}")
  sys.modules[module.__name__] = module  # where dataclasses look for their annotations
  exec(compile(file, str(PAGE), "exec"), module.__dict__)
  return module, line


@pytest.fixture(autouse=True)
def _forget_modules():
  before = set(sys.modules)
  yield
  for name in set(sys.modules) - before:
    if name.startswith("added_"):
      del sys.modules[name]


def test_a_solver_is_a_class_and_a_name(monkeypatch):
  monkeypatch.setattr(solvers, "SOLVERS", dict(solvers.SOLVERS))
  with pytest.raises(UserError, match="euler"):
    SampleConfig(solver="euler")
  _, line = section("A solver")
  monkeypatch.setattr(run, "SOLVERS", (*run.SOLVERS, *eval(f"({line})")))
  assert SampleConfig(solver="euler").solver == "euler"

  tables = solvers.make_solver("euler", tiny_model().schedule, 5)
  clean = jnp.linspace(-1, 1, 6)
  sample, previous = jnp.cos(jnp.arange(6.0)), jnp.zeros(6)
  sample = tables.alpha[0] * clean + tables.sigma[0] * sample
  for step in range(5):  # the network knows the answer: the solver must arrive there
    noise = (sample - tables.alpha[step] * clean) / tables.sigma[step]
    velocity = tables.alpha[step] * noise - tables.sigma[step] * clean
    sample, previous = solvers.advance(tables, jnp.int32(step), sample, velocity, previous)
  np.testing.assert_allclose(sample, clean, atol=1e-5)


def test_a_pose_source_is_a_function_and_a_suffix(monkeypatch, tmp_path):
  module, line = section("A pose source")
  track = make_track(frames=4)
  with open(tmp_path / "dance.track", "wb") as file:
    sizes = {"width": track.width, "height": track.height, "fps": track.fps}
    np.savez(file, body=track.body, face=track.face, hands=track.hands, **sizes)
  for suffix, read in eval(f"{{{line}}}", vars(module)).items():
    monkeypatch.setitem(motions.TRACK_FILES, suffix, read)
  motion = aj.read_motion(tmp_path / "dance.track", size=32, frames=3)
  frames = list(motion.frames(0))
  assert motion.fps == track.fps and len(frames) == 3
  assert all(frame.pose.shape == (32, 32, 3) and frame.pose.any() for frame in frames)


def test_a_loss_term_is_a_class_and_an_entry(monkeypatch):
  module, line = section("A loss term")
  networks, config = Networks(tiny_model()), RunConfig(part="vae", model=tiny_model())
  weights = drawn_weights(networks)["vae"]
  batch = {"target": {"frame": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)}, "reference": {}}

  def value() -> float:
    term = loss.make_loss(config, networks)
    return float(jax.jit(term.__call__)({"vae": weights}, {}, batch, jax.random.key(0))[0])

  before = value()
  for name, choose in eval(f"{{{line}}}", vars(module)).items():
    monkeypatch.setitem(loss.AUTOENCODER_TERMS, name, choose)
  assert isinstance(module.SquaredError(1.0), loss.Term)
  assert value() > before


def test_a_network_is_a_module_and_a_row(monkeypatch, tmp_path):
  module, line = section("A network")
  monkeypatch.setattr(
    registry, "NETWORKS", [*registry.NETWORKS, *eval(f"[{line}]", {**vars(registry), **vars(module)})]
  )
  config = module.SharpenerConfig(features=4)
  network = registry.make_module(config)
  params = network.init(jax.random.key(0), *registry.example_inputs(config))["params"]
  save_model(tmp_path, config, jax.tree.map(np.asarray, params))
  read = load_model(tmp_path, module.SharpenerConfig, np.float32)
  pictures = jax.random.uniform(jax.random.key(1), (1, 6, 6, 3))
  np.testing.assert_array_equal(
    network.apply({"params": params}, pictures), network.apply({"params": jax.device_put(read.params)}, pictures)
  )
  assert read.config == config
