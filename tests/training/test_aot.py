"""Ahead-of-time compiling for TPUs: the report, and the collectives in a program; most tests need no TPU compiler."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import tiny_model

from anchor_jax.compiler.hlo import collective_bytes, collectives
from anchor_jax.config.find import load_config
from anchor_jax.config.networks import ControlNetConfig
from anchor_jax.config.presets import stable_diffusion_15
from anchor_jax.config.run import MeshConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.models.networks import Networks
from anchor_jax.training import compiling
from anchor_jax.training.compiling import DoesNotFit, StepCost, compile_for, run_shapes, shortage

TEXT = """
  %a = f32[8,128]{1,0:T(8,128)} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %again = f32[8,128]{1,0:T(8,128)S(1)} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %b = (f32[16]{0}, /*index=1*/bf16[4,4]{1,0}) all-reduce(%y, %z), channel_id=2, replica_groups={{0,1},{2,3}}
  %c = ((f32[2]{0}, f32[1]{0}), (f32[8]{0}, f32[4]{0})) all-gather-start(%w, %v), replica_groups=mesh['a'=2,'b'=4] {'b'}
  %d = f32[8]{0} all-gather-done(%c)
  %r = f32[2]{0} reduce-scatter(%w), channel_id=4, replica_groups=mesh['data'=2,'fsdp'=4] {'data','fsdp'}
  %s = (f32[4]{0}, f32[4]{0}) all-reduce-start(%w, %v), channel_id=6, replica_groups={{0,1},{2,3}}
  %p = (f32[5]{0}, f32[5]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%w), channel_id=5
  ROOT %e = f32[3]{0} add(%f, %g)
"""


def test_counts_the_bytes_that_a_device_sends():
  assert collective_bytes(TEXT) == {
    "all-gather": 4096 * 3 // 4 + 48 * 3 // 4,
    "all-reduce": 64 + 32 + 32,  # reduce and broadcast, half of it each time
    "reduce-scatter": 8 * 7,
    "collective-permute": 20,
  }


# Required and allowed collectives of a mesh. Gradients are summed, sharded weights gathered, halves of the gated unit's
# kernel swapped over tensor. Activations are summed over tensor, and never move to another example's device.
SUM, GATHER, SWAP = {"all-reduce"}, {"all-gather"}, {"all-to-all", "collective-permute"}
MESHES = (
  (MeshConfig(data=8), SUM, set()),
  (MeshConfig(data=1, fsdp=8), SUM | GATHER, set()),
  (MeshConfig(data=2, fsdp=4), SUM | GATHER, set()),
  (MeshConfig(data=4, tensor=2), SUM | GATHER, SWAP),
  (MeshConfig(data=2, fsdp=2, tensor=2), SUM | GATHER, SWAP),
)


@pytest.mark.slow
@pytest.mark.parametrize("mesh,required,allowed", MESHES)
def test_a_mesh_has_the_expected_collectives(tiny_run, mesh, required, allowed, monkeypatch):
  monkeypatch.setattr(sharding, "_SMALLEST_SHARDED", 256)
  config = tiny_run("body", mesh=mesh, model=with_heads(2))
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, size=128))
  devices = sharding.make_mesh(config.mesh.sizes)
  step, arguments = run_shapes(config, devices)
  with sharding.use_mesh(devices):
    # Collectives are decided before code generation, which can therefore be the fastest level.
    compiled = step.lower(*arguments).compile({"xla_backend_optimization_level": 0})
    found = collectives(compiled.as_text())
  assert required <= {one.kind for one in found} <= required | allowed
  largest_weight = max(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves((arguments[0].weights, arguments[1])))
  moved = [one.elements for one in found if one.kind != "all-reduce"]
  assert max(moved, default=0) <= largest_weight < 128 * 128  # less than one example's activations at a level


def with_heads(heads):
  model = tiny_model()
  unet = dataclasses.replace(model.unet, attention_head_dim=heads)
  return dataclasses.replace(model, unet=unet, controlnet=ControlNetConfig.from_unet(unet, (4, 4, 8)))


def test_every_network_s_weights_are_sharded(tiny_run):
  """The sharding rules cover all layers: on 2 x 2 devices hardly any weight is replicated."""
  model = stable_diffusion_15("body", temporal_attention=True)
  weights = jax.eval_shape(Networks(model).init, jax.random.key(0))
  mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, tensor=2).sizes, jax.devices()[:4])
  for name in ("unet", "controlnet", "vae", "image_encoder"):
    shardings = sharding.parameter_shardings(weights[name], mesh)
    pairs = [(leaf.size, at.spec) for leaf, at in zip(jax.tree.leaves(weights[name]), jax.tree.leaves(shardings))]
    for axis, least in (("fsdp", 0.99), ("tensor", 0.75)):
      sharded = sum(size for size, spec in pairs if axis in spec)
      assert sharded > least * sum(size for size, _ in pairs), (name, axis)


@pytest.mark.tpu_compiler
def test_the_tpu_compiler_reports_whether_a_step_fits(tiny_run):
  pytest.importorskip("libtpu")
  cost = compile_for("v5e:2x2", tiny_run("body", mesh=MeshConfig(data=2, fsdp=2)))
  assert cost.devices == 4 and cost.fits and cost.memory == 16 * 10**9
  assert cost.arguments > 0 and cost.flops > 0 and "all-reduce" in cost.collectives
  assert "fits" in cost.table()


def test_an_unknown_topology_is_refused_in_one_line(tiny_run):
  with pytest.raises(UserError, match="no compiler for v9z"):
    compile_for("v9z:1x1", tiny_run("body"))


OUT_OF_MEMORY = (
  "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO"
  " temporaries (53.67G) exceeds available HBM (15.75G). HLO module: jit_step."
)


def test_the_shortage_is_read_from_a_compiler_error():
  assert shortage(OUT_OF_MEMORY) == ": it needs 53.67 GiB of 15.75 GiB"
  assert shortage("Used 20.5G of 15.75G hbm") == ": it needs 20.5 GiB of 15.75 GiB"
  assert shortage("no room") == ""


@pytest.mark.parametrize("memory,fits", [(10**9, True), (10, False), (0, False)])
def test_reports_whether_a_step_fits_even_if_the_compiler_gives_up(tiny_run, monkeypatch, capsys, memory, fits):
  def compile_in_no_time(topology, config):
    if not memory:
      raise DoesNotFit(f"the step DOES NOT FIT {topology}")
    return StepCost(16, "TPU v5 lite", 5, 6, memory, 1e12, {}, 3.0)

  monkeypatch.setattr(compiling, "compile_for", compile_in_no_time)
  assert compiling.print_fit("v5e:4x4", tiny_run("body")) == fits
  assert ("DOES NOT FIT" in capsys.readouterr().out) != fits


def test_a_batch_that_does_not_divide_over_the_chips_is_refused(tiny_run, monkeypatch):
  monkeypatch.setattr(compiling, "topology_devices", lambda topology: jax.devices())
  with pytest.raises(UserError, match="batch_size 9 must be a multiple of 8"):
    config = tiny_run("body", mesh=MeshConfig(data=8))
    compile_for("v5e:2x4", dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=9)))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["body", "head"])
def test_a_distillation_step_at_stable_diffusion_s_size(part):
  """All shapes fit, pixels included; nothing is compiled."""
  config = load_config(f"sd15_distil.py:{part}")
  config = dataclasses.replace(config, mesh=MeshConfig(data=1))
  mesh = sharding.make_mesh(config.mesh.sizes, jax.devices()[:1])
  step, arguments = run_shapes(config, mesh)
  assert "frame" in arguments[2]["target"]
  state, metrics = jax.eval_shape(step, *arguments)
  assert {"denoising", "refining"} <= metrics.keys()
  assert jax.tree.map(lambda leaf: leaf.shape, state) == jax.tree.map(lambda leaf: leaf.shape, arguments[0])
