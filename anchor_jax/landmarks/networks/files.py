"""Files of the landmark networks, which are fetched once (fetching.py); checked by hash when they are read.

They are MediaPipe's (Apache License 2.0).
"""

import argparse
import functools
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.files.cache import cache_home
from anchor_jax.files.inputs import read_bytes

LARGEST = 32 * 2**20  # bytes
# The landmark models that can be chosen, and the pose network of each; all else is the same.
LANDMARK_MODELS = {"mediapipe": "pose_landmark_full", "mediapipe-heavy": "pose_landmark_heavy"}


class Source(NamedTuple):
  """Where a file comes from.

  Attributes:
    path: in the archive that holds it, after what fetching.py puts before it, without suffix.
    sha256: of its content.
  """

  path: str
  sha256: str


# In the wheel, and in the npm package, whose full pose network is the wheel's.
MODULES = {
  "pose_detection": Source(
    "pose_detection/pose_detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
  ),
  "pose_landmark_full": Source(
    "pose_landmark/pose_landmark_full", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
  ),
  "face_detection_short_range": Source(
    "face_detection/face_detection_short_range", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
  ),
  "face_detection_full_range": Source(
    "face_detection/face_detection_full_range_sparse",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
  ),
  "face_landmark_with_attention": Source(
    "face_landmark/face_landmark_with_attention", "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4"
  ),
  "hand_recrop": Source(
    "holistic_landmark/hand_recrop", "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d"
  ),
  "hand_landmark_full": Source(
    "hand_landmark/hand_landmark_full", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"
  ),
}


HEAVY = Source("pose_landmark_heavy", "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe")


def models_folder() -> Path:
  """The folder of the files: ANCHOR_JAX_LANDMARKS, or anchor_jax/landmarks in the user's cache folder."""
  named = os.environ.get("ANCHOR_JAX_LANDMARKS")
  return Path(named) if named else cache_home() / "anchor_jax" / "landmarks"


def check_landmark_model(model: str) -> None:
  """Raises UserError unless there is a landmark model of this name."""
  if model not in LANDMARK_MODELS:
    raise UserError(f'there is no landmark model "{model}": use {", ".join(LANDMARK_MODELS)}')


def landmarks_flag(parser: argparse.ArgumentParser, films: str) -> None:
  """Adds the flag --landmarks=MODEL, the landmark model for `films` without a sidecar."""
  models = ", ".join(LANDMARK_MODELS)
  parser.add_argument(
    "--landmarks", default="mediapipe", metavar="MODEL", help=f"for {films} without a sidecar: {models}"
  )


def landmarks_installed(model: str = "mediapipe") -> bool:
  """Whether the networks of a landmark model can run here."""
  return _missing(model) is None


def require_landmarks(what: str | os.PathLike, model: str = "mediapipe") -> None:
  """Raises UserError, with what to do, unless a landmark model can run; `what` needs it, e.g. a video."""
  check_landmark_model(model)
  missing = _missing(model)
  if missing is not None:
    raise UserError(f"{what} comes without poses, and the landmark model that finds them can't run: {missing}")


def _missing(model: str) -> str | None:
  """What is missing, and what to do; None where nothing is."""
  if importlib.util.find_spec("ai_edge_litert") is None:
    return "its runtime is not installed: run `make landmarks`, or `pip install ai-edge-litert`"
  lacking = [name for name in _sources(model) if not (models_folder() / f"{name}.tflite").is_file()]
  return f"its networks are not in {models_folder()}: {_how(lacking[-1])}" if lacking else None


def _sources(model: str) -> dict[str, Source]:
  pose = LANDMARK_MODELS[model]
  return MODULES if pose != HEAVY.path else {**MODULES, pose: HEAVY}


def _how(name: str) -> str:
  if name == HEAVY.path:
    return "run `python -m anchor_jax.landmarks --heavy` (41 MB from the npm registry, once)"
  return "run `make landmarks`, or `python -m anchor_jax.landmarks` (35 MB from the package index, once)"


@functools.lru_cache(maxsize=2)
def read_models(model: str = "mediapipe") -> Mapping[str, bytes]:
  """Returns the files of a landmark model by name.

  Raises:
    UserError: one is missing or damaged.
  """
  return {name: read_model(name, source) for name, source in _sources(model).items()}


def read_model(name: str, source: Source) -> bytes:
  """Returns one file. Raises UserError if it is missing or damaged."""
  path = models_folder() / f"{name}.tflite"
  content = read_bytes(path, "landmark network", LARGEST)
  if not published(content, source):
    raise UserError(f"{path} is damaged: {_how(name)}")
  return content


def published(content: bytes, source: Source) -> bool:
  """Whether a file is as it was published."""
  return hashlib.sha256(content).hexdigest() == source.sha256
