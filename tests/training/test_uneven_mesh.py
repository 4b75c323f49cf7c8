"""Warnings about mesh sizes that do not divide Stable Diffusion's layers; no weights are created."""

import jax
import jax.numpy as jnp
import pytest

from anchor_jax.compiler.shares import _Sizes, shares
from anchor_jax.config.presets import stable_diffusion_15
from anchor_jax.models.networks import Networks


@pytest.fixture(scope="module")
def trained():
  shapes = jax.eval_shape(Networks(stable_diffusion_15("body")).init, jax.random.key(0))
  return {name: shapes[name] for name in ("unet", "controlnet")}


def sizes(data=1, fsdp=1, tensor=1, frames=1):
  return _Sizes({"data": data, "fsdp": fsdp, "tensor": tensor, "frames": frames})


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2, 4, 8, 16, 32, 64])
def test_powers_of_two_shard_evenly(trained, fsdp):
  found = shares(trained, sizes(fsdp=fsdp))
  assert found.times < 1.05 and not found.warning()


@pytest.mark.slow
@pytest.mark.parametrize(
  "fsdp,times,better", [(3, 1.7, None), (6, 5.7, (3, 2)), (12, 11, (3, 4)), (48, 45, (3, 16)), (256, 25, (4, 64))]
)
def test_sizes_that_divide_few_layers_are_reported_with_the_factor(trained, fsdp, times, better):
  found = shares(trained, sizes(fsdp=fsdp))
  assert found.times == pytest.approx(times, rel=0.05)
  line = found.warning()
  assert f"{found.times:.1f} times an even share" in line and "\n" not in line
  if better is None:
    assert "mesh.data" not in line
  else:
    assert f"mesh.data={better[0]} and mesh.fsdp={better[1]}" in line
    assert not shares(trained, sizes(*better)).warning()


def test_a_few_layers_give_the_same_warning():
  of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  few = {"conv": of(3, 3, 320, 320), "proj": of(1280, 1280), "to_k": of(768, 640), "bias": of(320)}
  assert shares(few, sizes(fsdp=16)).times < 1.05
  found = shares(few, sizes(fsdp=48))
  assert found.times > 20 and found.better == (3, 16)
  assert "times an even share; with mesh.data=3 and mesh.fsdp=16 it holds" in found.warning()
  assert shares(few, sizes(data=48)).times == 1  # nothing is sharded
  assert shares({"w": jax.ShapeDtypeStruct((7, 4096), jnp.float32)}, sizes(fsdp=4)).times == 1.0
