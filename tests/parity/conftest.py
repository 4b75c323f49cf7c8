"""Comparisons with other torch and Flax implementations: `make parity` installs them and runs this folder."""

import functools
import importlib.util
import os

import jax
import numpy as np
import pytest

os.environ.update(
  HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DIFFUSERS_VERBOSITY="error", TRANSFORMERS_VERBOSITY="error"
)

collect_ignore_glob = [] if importlib.util.find_spec("torch") and importlib.util.find_spec("diffusers") else ["test_*"]


def pytest_collection_modifyitems(items):
  for item in items:
    if "parity" in item.path.parts:
      item.add_marker(pytest.mark.parity)


@pytest.fixture(scope="session")
def jit():
  return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def agree():
  """Asserts that two arrays agree within 2e-5 of the larger of 1 and the largest value."""

  def check(found, expected, tolerance=2e-5):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())

  return check


@pytest.fixture(scope="session")
def randomize():
  """Fills a torch module with random nonzero weights from a seed."""
  import torch

  def fill(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
      for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
          parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
          parameter.copy_(0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return module.eval()

  return fill
