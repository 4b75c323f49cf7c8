"""Low-rank adapters (LoRA, Hu et al. 2021): a few million numbers that stand for a change of the whole network.

An adapted layer's kernel W, [... in out], becomes W + down @ (up * alpha / rank), with down [... in rank] and
up [rank out]. Adapters are a tree of their own beside the networks' weights, and are merged into them as a pure
function: in the training step, where the gradient goes through to down and up, and once where a person is read.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.config import LoRAConfig
from anchor_jax.errors import UserError, suggestion
from anchor_jax.shapes import Array, Key, PyTree


def init_lora(key: Key[Array, ""], weights: PyTree, config: LoRAConfig) -> PyTree:
  """Adapters that change nothing yet: down is random, up is zero; {network: {... layer: {down, up}}}, float32.

  Raises:
    UserError: no layer has one of the names in config.targets.
  """
  made = {}
  for number, network in enumerate(config.networks):
    layers = _layers(weights[network], "")
    for target in config.targets:
      if not any(layer.endswith(f"/{target}") for layer in layers):
        hint = suggestion(target, {layer.rpartition("/")[2] for layer in layers})
        raise UserError(f"no layer of the {network} is named {target} (config.lora.targets).{hint}")
    made[network] = _adapters(jax.random.fold_in(key, number), weights[network], config, "")
  return made


def merge_weights(frozen: PyTree, trained: PyTree, config: LoRAConfig) -> PyTree:
  """All networks' weights: what a run trains in the place of what it started from, adapters merged in."""
  weights = {**frozen, **trained}
  adapters = weights.pop("lora", {})
  scale = config.scale if adapters else 1.0
  return {**weights, **{network: _merged(weights[network], adapters[network], scale) for network in adapters}}


def _adapters(key: Key[Array, ""], tree: PyTree, config: LoRAConfig, path: str) -> PyTree:
  made = {}
  for number, (name, node) in enumerate(sorted(tree.items())):
    if not isinstance(node, Mapping):
      continue
    place, key_here = f"{path}/{name}", jax.random.fold_in(key, number)
    if "kernel" in node and any(place.endswith(f"/{target}") for target in config.targets):
      *fan_in, features = node["kernel"].shape
      down = jax.nn.initializers.he_uniform()(key_here, (*fan_in, config.rank), jnp.float32)
      made[name] = {"down": down, "up": jnp.zeros((config.rank, features), jnp.float32)}
    elif below := _adapters(key_here, node, config, place):
      made[name] = below
  return made


def _merged(tree: Any, adapters: PyTree, scale: float) -> PyTree:
  if "down" in adapters:
    # A TPU would multiply float32 in bfloat16 unless told: then the person read would not be the person trained.
    change = jnp.matmul(adapters["down"], adapters["up"] * scale, precision="highest")
    return {**tree, "kernel": tree["kernel"] + change}
  return {**tree, **{name: _merged(tree[name], below, scale) for name, below in adapters.items()}}


def _layers(tree: PyTree, path: str) -> set[str]:
  """Paths of the layers that have a kernel."""
  found: set[str] = set()
  for name, node in tree.items():
    if isinstance(node, Mapping):
      found |= {f"{path}/{name}"} if "kernel" in node else _layers(node, f"{path}/{name}")
  return found
