import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.models.pictures import require_finite, to_bytes
from anchor_jax.training.held_out import _bytes


def test_bytes_say_which_pictures_are_finite():
  pictures = jnp.full((4, 2, 2, 3), 0.5).at[1, 0, 0, 0].set(jnp.nan)
  latents = jnp.zeros((4, 1, 1, 2)).at[3, 0, 0, 1].set(jnp.inf)
  made, finite = jax.jit(to_bytes)(pictures, latents)
  assert made.dtype == np.uint8 and (np.asarray(made)[[0, 2]] == 128).all()
  assert finite.tolist() == [True, False, True, False]
  require_finite(np.asarray(finite)[[0, 2]], "frame")
  with pytest.raises(UserError, match=r"^frame 7 has values"):
    require_finite(np.asarray(finite), "frame", 6)


def test_a_preview_that_is_not_finite_is_said(caplog):
  _bytes(np.full((2, 2, 2, 3), 0.25, np.float32))
  assert not caplog.text
  _bytes(np.full((2, 2, 2, 3), np.nan, np.float32))
  assert "2 of 2 previews" in caplog.text
