"""Finds the weights that a user names: a folder, or the word "studio" for the weights in the package.

The word has precedence over a folder of that name in the working directory, so that a command means the same wherever
it runs. Such a folder is named by its path, ./studio.
"""

import logging
import os
from importlib import resources
from pathlib import Path

log = logging.getLogger(__name__)

STUDIO = "studio"


def shipped() -> Path:
  """Returns the folder of the pre-trained studio weights in the package."""
  return Path(str(resources.files("anchor_jax"))) / "weights" / STUDIO


def is_shipped(name: str | os.PathLike) -> bool:
  """Whether a name is the word for the weights in the package."""
  return os.fspath(name) == STUDIO


def folder_of(name: str | os.PathLike) -> Path:
  """Returns the folder that a user names; it may not exist."""
  if not is_shipped(name):
    return Path(name)
  if os.path.isdir(STUDIO):
    log.warning('"studio" is the weights in the package: name the folder studio of this directory ./studio')
  return shipped()


def path_or_word(text: str) -> Path:
  """Returns the path in a flag. ./studio becomes absolute, since pathlib would reduce it to the word."""
  return Path(text) if text == STUDIO or not is_shipped(Path(text)) else Path(text).absolute()
