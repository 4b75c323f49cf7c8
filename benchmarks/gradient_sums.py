"""Compares the error of summing gradients over devices in bfloat16 with the error of computing in bfloat16.

Example:
  python benchmarks/gradient_sums.py --devices=8,64,256

Each device has one example of the head's loss with the shipped weights. A ring adds the devices' gradients one after
another and rounds after each addition, which is the worst order; a square torus, as in a pod of TPUs, does so for each
of its rows and then for their sums. Figures are errors relative to the norm of all kernels' gradients: "computing" is
bfloat16 against float32 on one device, "summing" is ring or torus against the same gradients summed in float32.
"""

import argparse
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.find import load_config
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import initial_weights
from anchor_jax.training.batches import batch_shapes
from anchor_jax.training.loss import make_loss


def _norm(leaves: list[Any]) -> float:
  return float(np.sqrt(sum(float(jnp.sum(jnp.square(leaf.astype(jnp.float32)))) for leaf in leaves)))


def _relative_error(found: list[Any], exact: list[Any]) -> float:
  return _norm([x.astype(jnp.float32) - y for x, y in zip(found, exact, strict=True)]) / _norm(exact)


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--devices", default="8,64,256", help="numbers of devices")
  counts = sorted(int(count) for count in parser.parse_args().devices.split(","))
  config = load_config("studio_finetune.py:head", {"data.batch_size": 1, "data.crop": 64, "condition_dropout": 0.0})
  networks, weights = initial_weights(config)
  trained = {name: weights.pop(name) for name in ("unet", "controlnet")}
  config = dataclasses.replace(config, model=networks.model)
  shapes = batch_shapes(config, 64)

  def gradient(dtype: str) -> Any:
    loss = make_loss(config, Networks(networks.model, dtype))
    return jax.jit(lambda trained, batch, key: jax.grad(lambda w: loss(w, weights, batch, key)[0])(trained))

  in_float32, in_bfloat16 = gradient("float32"), gradient("bfloat16")
  kernels = lambda tree: [
    leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if str(getattr(path[-1], "key", "")) == "kernel"
  ]
  add = jax.jit(
    lambda ring, own: [(x + y.astype(jnp.bfloat16)).astype(jnp.bfloat16) for x, y in zip(ring, own, strict=True)]
  )
  exact = ring = computed = None
  tori: dict[int, list[Any]] = {int(count**0.5): [] for count in counts if int(count**0.5) ** 2 == count}
  for number in range(counts[-1]):
    rng = np.random.default_rng(number)
    draw = lambda like, rng=rng: (
      rng.integers(0, 256, like.shape).astype(np.uint8)
      if like.dtype == np.uint8
      else rng.normal(size=like.shape).astype(np.float32)
    )
    batch, key = jax.tree.map(draw, shapes), jax.random.key(number)
    own, true = kernels(in_bfloat16(trained, batch, key)), kernels(in_float32(trained, batch, key))
    if exact is None or ring is None or computed is None:
      exact, computed, ring = own, true, [leaf.astype(jnp.bfloat16) for leaf in own]
    else:
      exact, computed = (jax.tree.map(jnp.add, one, other) for one, other in ((exact, own), (computed, true)))
      ring = add(ring, own)
    rounded = [leaf.astype(jnp.bfloat16) for leaf in own]
    for side, rows in tori.items():
      if number < side * side and number % side == 0:
        rows.append(rounded)
      elif number < side * side:
        rows[-1] = add(rows[-1], own)
    if number + 1 in counts:
      sums = f"in a ring {_relative_error(ring, exact):.2%}"
      if rows := tori.get(int((number + 1) ** 0.5)):
        sums += f", in a torus {_relative_error(functools.reduce(add, rows), exact):.2%}"
      print(f"{number + 1:4d} devices: computing {_relative_error(exact, computed):.2%}, summing {sums}", flush=True)


if __name__ == "__main__":
  main()
