"""The golden arrays of the reference hold, without torch, and deviations are reported."""

import importlib
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import golden as golden_numbers

GOLDEN = Path(__file__).parent / "golden" / "reference"


@pytest.fixture(scope="module")
def golden():
  return golden_numbers.Golden(GOLDEN)


# The other groups run the same networks and samplers; `make test-slow` computes these too.
LONG = ("video_network", "head_run")


@pytest.mark.parametrize(
  "group",
  [
    pytest.param(group, id=group.__name__, marks=pytest.mark.slow if group.__name__ in LONG else ())
    for group in golden_numbers.GROUPS
  ],
)
def test_the_reference_s_arrays_are_reproduced(golden, group):
  computed = group(golden)
  assert computed
  for name, array in computed.items():
    row = golden_numbers.check_array(name, golden.arrays[name], np.asarray(array))
    assert row.holds, str(row)


def test_every_array_belongs_to_a_group_or_is_an_input():
  # Arrays of golden.npz that no group computes would not be checked.
  names = set(np.load(GOLDEN / "golden.npz").files) - golden_numbers.INPUTS
  assert names == {
    *("clip_last_hidden_state null_context vae_mean vae_logvar vae_decoded f_mid f_eps f_eps_unet_alone h_eps").split(),
    *(f"f_down_{i:02d}" for i in range(8)),
    *("v_mid v_down_00 v_down_last v_eps s_latents_per_step s_video s_timesteps l_noisy l_loss_body").split(),
    *("l_masked_mean l_mask_latent l_loss_head hs_latents_per_step hs_images").split(),
  }


def test_importing_the_module_sets_no_platform(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  # runpy would write this process's checked bytecode where processes without the checker read it.
  monkeypatch.setattr(sys, "dont_write_bytecode", True)
  for name in ("anchor_jax.verify", "anchor_jax.evaluation.golden"):
    monkeypatch.delitem(sys.modules, name, raising=False)  # so that they are imported again
  assert runpy.run_module("anchor_jax.verify", run_name="imported")["main"]
  importlib.import_module("anchor_jax.evaluation.golden")
  assert "JAX_PLATFORMS" not in os.environ


def test_a_wrong_array_fails():
  expected = np.ones(3, np.float32)
  assert golden_numbers.check_array("f_eps", expected, expected + 1e-5).holds
  assert not golden_numbers.check_array("f_eps", expected, expected + 3e-5).holds
  assert golden_numbers.check_array("s_video", expected, expected + 3e-5).holds
  assert not golden_numbers.check_array("f_eps", expected, expected * np.nan).holds
  assert not golden_numbers.check_array("f_eps", expected, expected[:2]).holds
  assert not golden_numbers.check_array("f_eps", expected, None).holds
  assert not golden_numbers.check_array("s_timesteps", np.arange(3), np.arange(3) + 1).holds


def test_a_damaged_folder_is_reported(tmp_path):
  with pytest.raises(UserError, match="no folder"):
    golden_numbers.Golden(tmp_path / "none")
  shutil.copy(GOLDEN / "golden.json", tmp_path)
  (tmp_path / "golden.npz").write_bytes((GOLDEN / "golden.npz").read_bytes()[:1000])
  with pytest.raises(UserError, match=r"golden\.npz .*damaged"):
    golden_numbers.Golden(tmp_path)
