"""The network's predictions for a batch of windows, accumulated per frame."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Bool, Float, Int, PyTree
from anchor_jax.diffusion.guidance import Branches

# denoise(latents [B T H W C], timesteps [B], context [B N D], condition [B T ...], frame_mask [B T]) -> [B T H W C]:
# all that diffusion/ knows of a network. `condition` is a tree; what is in it is between the caller and the network.
Denoise = Callable[..., Float[Array, "B T H W C"]]


def predict_windows(
  denoise: Denoise,
  latents: Float[Array, "F H W C"],
  timestep: Int[Array, ""],
  branches: Branches,
  condition: PyTree,
  total: Float[Array, "branch F H W C"],
  frames: Int[Array, "K T"],
  mask: Bool[Array, "K T"],
  weights: Float[Array, "K T"],
  constrain: Callable[[Array], Array] | None = None,
) -> Float[Array, "branch F H W C"]:
  """Accumulates the weighted predictions of K windows into `total`; one call of the network for windows and branches.

  Where guidance does not act, the null branch is not run and gets the conditional one's predictions.

  Args:
    denoise: the network.
    latents: noisy latents of F frames, all at `timestep`.
    timestep: training timestep.
    branches: contexts of the conditional and perhaps the null branch.
    condition: arrays with F frames on the leading axis.
    total: sums to add to.
    frames, mask, weights: rows of a `WindowPlan`, whose frame numbers count from the first of the F.
    constrain: sharding constraint for arrays whose leading axis is the batch of the call, branch * K.
  """
  constrain = constrain or (lambda leaf: leaf)
  added = lambda contexts: _weighted(denoise, latents, timestep, contexts, condition, frames, mask, weights, constrain)
  if branches.guided is None:
    weighted = added(branches.contexts)
  else:
    alone = lambda contexts: jnp.broadcast_to(added(contexts[:1]), (len(contexts), *frames.shape, *latents.shape[1:]))
    weighted = jax.lax.cond(branches.guided, added, alone, branches.contexts)
  return total.at[:, frames.reshape(-1)].add(weighted.reshape(len(branches), -1, *latents.shape[1:]))


def _weighted(
  denoise: Denoise,
  latents: Array,
  timestep: Array,
  contexts: Float[Array, "branch N D"],
  condition: PyTree,
  frames: Array,
  mask: Array,
  weights: Array,
  constrain: Callable[[Array], Array],
) -> Float[Array, "branch K T H W C"]:
  """The windows' predictions with these contexts, times their weights; arguments as of `predict_windows`."""
  each_branch = lambda leaf: constrain(jnp.tile(leaf, (len(contexts),) + (1,) * (leaf.ndim - 1)))
  inputs, conditions = jax.tree.map(lambda leaf: each_branch(leaf[frames]), (latents, condition))
  timesteps = jnp.full((inputs.shape[0],), timestep)
  repeated = constrain(jnp.repeat(contexts, frames.shape[0], axis=0))
  prediction = constrain(denoise(inputs, timesteps, repeated, conditions, each_branch(mask)))
  prediction = prediction.reshape(len(contexts), *frames.shape, *latents.shape[1:])
  return prediction * weights[..., None, None, None]
