"""The network's predictions for a batch of windows, accumulated per frame."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Bool, Float, Int, PyTree
from anchor_jax.diffusion.guidance import Branches


@runtime_checkable
class Denoise(Protocol):
  """The network, as this room sees it: a function from noisy latents to a prediction."""

  def __call__(
    self,
    latents: Float[Array, "B T H W C"],
    timesteps: Int[Array, "B"],
    context: Float[Array, "B N D"],
    frame_inputs: PyTree,
    frame_mask: Bool[Array, "B T"],
    /,
  ) -> Float[Array, "B T H W C"]:
    """Returns what the schedule's `prediction_type` says: noise, velocity or clean latents.

    Args:
      latents: noisy latents of B windows.
      timesteps: training timestep of each window.
      context: tokens for cross-attention.
      frame_inputs: arrays [B T ...]; their structure is between the caller of the sampler and the network.
      frame_mask: False for padded frames, which must not influence the others.
    """
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowInputs:
  """Everything that the predictions for K windows depend on, besides the network. A pytree.

  Attributes:
    latents: noisy latents of F frames, all at `timestep`; the level of a stream holds R blocks of F frames.
    timestep: training timestep.
    branches: contexts of the conditional branch and, with guidance, the null branch.
    frame_inputs: what the network takes for each frame; leading axes as those of `latents`.
    frames, mask, weights: rows of a `WindowPlan`, whose frame numbers count from the first of the frames here.
  """

  latents: Float[Array, "*blocks F H W C"]
  timestep: Int[Array, ""]
  branches: Branches
  frame_inputs: PyTree
  frames: Int[Array, "K T"]
  mask: Bool[Array, "K T"]
  weights: Float[Array, "K T"]


Constrain = Callable[[Array], Array]  # adds a sharding constraint to an array


def predict_windows(
  denoise: Denoise,
  inputs: WindowInputs,
  total: Float[Array, "branch F H W C"],
  constrain: Constrain | None = None,
) -> Float[Array, "branch F H W C"]:
  """`total` plus the windows' weighted predictions; one call of the network for all windows and branches.

  Where guidance does not act, the null branch is not run and gets the conditional branch's predictions.

  Args:
    denoise: the network.
    inputs: the windows, and the F frames that they lie in.
    total: sums to add to.
    constrain: applied to arrays whose leading axis is the batch of the call, branch * K.
  """
  constrain = constrain or (lambda leaf: leaf)
  branches, frames, latents = inputs.branches, inputs.frames, inputs.latents
  predict = lambda contexts: _weighted(denoise, inputs, contexts, constrain)
  if branches.guided is None:
    weighted = predict(branches.contexts)
  else:
    conditional_only = lambda contexts: jnp.broadcast_to(
      predict(contexts[:1]), (len(contexts), *frames.shape, *latents.shape[1:])
    )
    weighted = jax.lax.cond(branches.guided, predict, conditional_only, branches.contexts)
  return total.at[:, frames.reshape(-1)].add(weighted.reshape(len(branches), -1, *latents.shape[1:]))


def _weighted(
  denoise: Denoise, inputs: WindowInputs, contexts: Float[Array, "branch N D"], constrain: Constrain
) -> Float[Array, "branch K T H W C"]:
  """The windows' predictions with these contexts, times the windows' weights."""
  frames = inputs.frames
  each_branch = lambda leaf: constrain(jnp.tile(leaf, (len(contexts),) + (1,) * (leaf.ndim - 1)))
  latents, frame_inputs = jax.tree.map(lambda leaf: each_branch(leaf[frames]), (inputs.latents, inputs.frame_inputs))
  timesteps = jnp.full((latents.shape[0],), inputs.timestep)
  repeated = constrain(jnp.repeat(contexts, frames.shape[0], axis=0))
  prediction = constrain(denoise(latents, timesteps, repeated, frame_inputs, each_branch(inputs.mask)))
  prediction = prediction.reshape(len(contexts), *frames.shape, *inputs.latents.shape[1:])
  return prediction * inputs.weights[..., None, None, None]
