"""Classifier-free guidance (Ho & Salimans 2022, eq. 6)."""

from anchor_jax.shapes import Array, Float


def guide(conditional: Float[Array, "..."], null: Float[Array, "..."], scale: float) -> Float[Array, "..."]:
  """Moves the prediction away from the null branch; scale 1 is the conditional branch itself."""
  return null + scale * (conditional - null)
