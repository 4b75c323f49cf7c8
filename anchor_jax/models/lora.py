"""Low-rank adapters (LoRA; Hu et al. 2021) as a tree of parameters besides the networks' weights.

The kernel W [... in out] of an adapted layer becomes W + down @ (up * alpha / rank), with down [... in rank] and
up [rank out]. `merge_weights` is a pure function: the training step differentiates through it with respect to down and
up, and loading a trained person calls it once. No layer knows about adapters.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.config.run import LoRAConfig
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Key, PyTree


def init_lora(key: Key[Array, ""], weights: PyTree, config: LoRAConfig) -> PyTree:
  """New adapters, {network: {... layer: {"down", "up"}}}, float32; up is zero, so merging them changes nothing.

  Args:
    key: seeds down (He uniform).
    weights: the networks' weights, by network.
    config: which networks and layers, and the rank.

  Raises:
    UserError: a name in config.targets matches no layer.
  """
  adapters = {}
  for number, network in enumerate(config.networks):
    layers = _layers(weights[network], "")
    for target in config.targets:
      if not any(layer.endswith(f"/{target}") for layer in layers):
        hint = suggestion(target, {layer.rpartition("/")[2] for layer in layers})
        raise UserError(f"no layer of the {network} is named {target} (config.lora.targets).{hint}")
    adapters[network] = _adapters(jax.random.fold_in(key, number), weights[network], config, "")
  return adapters


def merge_weights(frozen: PyTree, trained: PyTree, config: LoRAConfig) -> PyTree:
  """All networks' weights: `trained` over `frozen`, with the adapters under trained["lora"], if any, merged in."""
  weights = {**frozen, **trained}
  adapters = weights.pop("lora", {})
  scale = config.scale if adapters else 1.0
  return {**weights, **{network: _merged(weights[network], adapters[network], scale) for network in adapters}}


def _adapters(key: Key[Array, ""], tree: PyTree, config: LoRAConfig, path: str) -> PyTree:
  adapters = {}
  for number, (name, node) in enumerate(sorted(tree.items())):
    if not isinstance(node, Mapping):
      continue
    node_path, node_key = f"{path}/{name}", jax.random.fold_in(key, number)
    if "kernel" in node and any(node_path.endswith(f"/{target}") for target in config.targets):
      *fan_in, features = node["kernel"].shape
      down = jax.nn.initializers.he_uniform()(node_key, (*fan_in, config.rank), jnp.float32)
      adapters[name] = {"down": down, "up": jnp.zeros((config.rank, features), jnp.float32)}
    elif below := _adapters(node_key, node, config, node_path):
      adapters[name] = below
  return adapters


def _merged(tree: Any, adapters: PyTree, scale: float) -> PyTree:
  if "down" in adapters:
    # At default precision a TPU multiplies float32 in bfloat16, so training and loading could merge differently.
    change = jnp.matmul(adapters["down"], adapters["up"] * scale, precision="highest")
    return {**tree, "kernel": tree["kernel"] + change}
  return {**tree, **{name: _merged(tree[name], below, scale) for name, below in adapters.items()}}


def _layers(tree: PyTree, path: str) -> set[str]:
  """Paths of all layers that have a kernel."""
  found: set[str] = set()
  for name, node in tree.items():
    if isinstance(node, Mapping):
      found |= {f"{path}/{name}"} if "kernel" in node else _layers(node, f"{path}/{name}")
  return found
