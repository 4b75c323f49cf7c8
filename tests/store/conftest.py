import shutil
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"


@pytest.fixture(scope="session")
def reference():
  """The golden folder: small models as diffusers and transformers wrote them."""
  return REFERENCE


@pytest.fixture
def vae_folder(tmp_path):
  """A copy of its autoencoder, to be spoiled."""
  return Path(shutil.copytree(REFERENCE / "body" / "vae", tmp_path / "vae"))
