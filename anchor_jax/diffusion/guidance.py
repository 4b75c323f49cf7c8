"""Classifier-free guidance (Ho & Salimans 2022, eq. 6) in an interval of noise levels (Kynkäänniemi et al. 2024)."""

import dataclasses

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Bool, Float, Int
from anchor_jax.diffusion.solvers import SolverTables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Branches:
  """Contexts of the conditional branch and, with guidance, of the null branch; see `make_branches`. A pytree.

  Attributes:
    contexts: tokens of the conditional branch, then those of the null branch if there is one.
    scale: guidance scale.
    interval: noise levels (sigma, 0 clean to 1 pure noise) between which guidance acts; elsewhere the scale is 1.
    guided: whether guidance acts at the current step, so that the null branch is needed (`at_step`); None: always.
  """

  contexts: Float[Array, "branch N D"]
  scale: float = dataclasses.field(metadata={"static": True})
  interval: tuple[float, ...] = dataclasses.field(metadata={"static": True})
  guided: Bool[Array, ""] | None = None

  def __len__(self) -> int:
    return self.contexts.shape[0]

  def scale_at(self, solver: SolverTables, step: Int[Array, ""] | Int[Array, "S"]) -> float | Float[Array, "..."]:
    """The guidance scale at sampling steps."""
    if self.interval == (0.0, 1.0):
      return self.scale
    return jnp.where(self._acts(solver, step), self.scale, 1.0)

  def at_step(self, solver: SolverTables, step: Int[Array, ""]) -> "Branches":
    """The branches with `guided` set for one sampling step."""
    if len(self) == 1 or self.interval == (0.0, 1.0):
      return self
    return dataclasses.replace(self, guided=self._acts(solver, step))

  def _acts(self, solver: SolverTables, step: Int[Array, ""] | Int[Array, "S"]) -> Bool[Array, "..."]:
    sigma = solver.sigma[step]
    return (sigma >= self.interval[0]) & (sigma <= self.interval[1])


def make_branches(
  context: Float[Array, "N D"],
  null_context: Float[Array, "N D"] | None = None,
  scale: float = 1.0,
  interval: tuple[float, ...] = (0.0, 1.0),
) -> Branches:
  """Two branches, or only the conditional one if the scale is at most 1 or there is no null context."""
  if null_context is None or scale <= 1:
    return Branches(context[None], scale, interval)
  return Branches(jnp.stack([context, null_context]), scale, interval)


def guide(
  predictions: Float[Array, "branch ..."], scale: float | Float[Array, ""] | Float[Array, "S"]
) -> Float[Array, "..."]:
  """The guided prediction, null + scale * (conditional - null); with one branch, its prediction.

  `scale` is one number, or one per leading index of the prediction (windows at different noise levels).
  """
  if len(predictions) == 1:
    return predictions[0]
  scale = jnp.asarray(scale)
  scale = scale.reshape(scale.shape + (1,) * (predictions.ndim - 1 - scale.ndim))
  return predictions[1] + scale * (predictions[0] - predictions[1])
