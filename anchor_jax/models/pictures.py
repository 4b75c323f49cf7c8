"""Bytes of the networks' pictures: the one place where floats become uint8, which knows no NaN."""

import jax.numpy as jnp
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Bool, Float, NdArray, UInt8


def to_bytes(
  pictures: Float[Array, "B H W 3"], latents: Float[Array, "B h w C"] | None = None
) -> tuple[UInt8[Array, "B H W 3"], Bool[Array, "B"]]:
  """Bytes of pictures in [0, 1], and for each whether it is all finite; what is not becomes black here.

  Args:
    pictures: of the networks.
    latents: that they are decoded from: pictures are clipped, which hides infinities.
  """
  finite = jnp.isfinite(pictures).all(axis=(1, 2, 3))
  if latents is not None:
    finite &= jnp.isfinite(latents).all(axis=(1, 2, 3))
  return jnp.round(pictures * 255).astype(jnp.uint8), finite


def require_finite(finite: Bool[NdArray, "B"], what: str, first: int = 0) -> None:
  """Raises UserError unless all pictures are finite.

  Args:
    finite: of each, see `to_bytes`.
    what: is named, such as "frame".
    first: number of the first of them.
  """
  if not finite.all():
    number = first + int(np.argmin(finite))
    raise UserError(
      f"{what} {number} has values that are no finite numbers: the weights are damaged, or the guidance, the"
      " conditioning scale or the rate that they were trained with is too large"
    )
