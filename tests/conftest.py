"""What holds for every test: the CPU as eight devices, shapes and types of all our functions checked as they run.

This runs before anything imports JAX, which reads its platform and its number of devices once.
"""

import ctypes
import gc
import os
import pathlib
import shutil
import sys
import types

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile many programs and run each a few times, so optimizing them costs more than it saves: LLVM's optimizer is
# off, loops are emitted without MLIR (a third of the time of compiling), and a program is one LLVM module.
os.environ["XLA_FLAGS"] = (
  f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
  " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
).strip()
# Many tests train the same tiny networks: a program is compiled once, for all workers and for the next run too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Tests count how often the landmark model runs; those of what it keeps name a folder.
os.environ["ANCHOR_JAX_TRACKS"] = ""
# Tests may start processes of their own; those see the same platform and need no network.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# Tracing makes many objects that live on; looking for cycles among them takes a tenth of the time of a test.
gc.set_threshold(50_000, 20, 20)

# Each worker and each process of a test would compile all modules if the environment kept Python from writing bytecode.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# An int will do where a float is asked for, as it does for the type checker.
checker = types.ModuleType("run_time_type_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker

# Every annotated function of the package checks its arguments and results, from here until pytest ends.
install_import_hook("anchor_jax", "run_time_type_checker.check")

REFERENCE = pathlib.Path(__file__).parent / "golden" / "reference"


def pytest_report_header():
  """What of the machine sums depend on, so that a log says where it was made (`make test-machines`)."""
  kernel = "unknown"
  for library in pathlib.Path(np.__file__).parents[1].glob("numpy.libs/*openblas64*"):
    name = ctypes.CDLL(str(library)).scipy_openblas_get_corename64_
    name.restype = ctypes.c_char_p
    kernel = name().decode()
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  return f"machine: cores {cores}, OpenBLAS {kernel}, XLA_FLAGS {os.environ['XLA_FLAGS']}"


@pytest.fixture(scope="session")
def reference():
  """The golden folder: small models as diffusers and transformers wrote them."""
  return REFERENCE


@pytest.fixture
def vae_folder(tmp_path):
  """A copy of its autoencoder, to be spoiled."""
  return pathlib.Path(shutil.copytree(REFERENCE / "body" / "vae", tmp_path / "vae"))


@pytest.fixture(scope="session")
def posed_frames():
  """Frames of a disc that moves, with pose, masks and landmarks."""
  from people import make_posed_frames

  return make_posed_frames


@pytest.fixture(scope="session")
def standing_track():
  """Makes landmarks of a standing body."""
  from people import make_track

  return make_track


# The files that take longest start first, so that no worker is left alone with one of them at the end.
LONGEST = (
  "test_verify",
  "test_textures",
  "test_generate",
  "test_export",
  "test_attention",
  "test_person",
  "test_convert",
  "test_stream",
  "test_loss",
  "test_unet",
)


def pytest_collection_modifyitems(items):
  rank = {name: place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
