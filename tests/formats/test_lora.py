import numpy as np
import pytest
from safetensors.numpy import save_file

from anchor_jax.core.errors import UserError
from anchor_jax.formats.lora import Adapters, load_adapters, save_adapters
from anchor_jax.formats.tensors import weights_hash

DOWN, UP = "unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"
GOOD = {DOWN: np.ones((2, 3), np.float32), UP: np.ones((4, 2), np.float32)}


def test_saved_adapters_are_loaded(tmp_path):
  rng = np.random.default_rng(0)
  layer = {"down": rng.normal(size=(3, 2)).astype("f4"), "up": rng.normal(size=(2, 4)).astype("f4")}
  save_adapters(tmp_path / "a", Adapters({"unet": {"a": {"to_q": layer}}}, np.ones((5, 8), "f4"), "hash", 7))
  read = load_adapters(tmp_path / "a")
  assert (read.step, read.base_hash) == (7, "hash") and read.null_context is not None
  np.testing.assert_array_equal(read.tree["unet"]["a"]["to_q"]["down"], layer["down"])
  np.testing.assert_array_equal(read.tree["unet"]["a"]["to_q"]["up"], layer["up"])


@pytest.mark.parametrize(
  "tensors,step,reason",
  [
    (GOOD, "²", "no adapters that can be read"),
    (GOOD, "9" * 4000, "no adapters that can be read"),
    ({}, "1", "no adapters that can be read"),
    ({DOWN: GOOD[DOWN]}, "1", "half of the adapter"),
    ({**GOOD, DOWN: np.ones((2, 3, 1), np.float32)}, "1", "which is not an adapter"),
    ({**GOOD, "vae.a.lora_A.weight": GOOD[DOWN]}, "1", "which is not an adapter"),
    ({**GOOD, "null_context": np.ones(3, np.float32)}, "1", r"null_context of shape \[3\]"),
  ],
)
def test_a_malformed_file_is_reported_in_one_line(tmp_path, tensors, step, reason):
  save_file(tensors, tmp_path / "lora.safetensors", {"step": step})
  with pytest.raises(UserError, match=reason) as caught:
    load_adapters(tmp_path / "lora.safetensors")
  assert "\n" not in str(caught.value)


def test_the_hash_covers_names_and_values():
  weights = {"unet": {"kernel": np.arange(3.0)}}
  assert weights_hash(weights) == weights_hash({"unet": {"kernel": np.arange(3, dtype=np.float32)}})
  assert weights_hash(weights) != weights_hash({"vae": weights["unet"]})
  assert weights_hash(weights) != weights_hash({"unet": {"kernel": np.arange(3.0) + 1e-6}})
