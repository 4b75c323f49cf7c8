"""Where the weights are that a user names: a folder, or the word "studio", the weights in the package, everywhere.

The word comes first, also where the working directory holds a folder of that name: a command means the same wherever it
is run. Such a folder is named with its path, ./studio.
"""

import logging
import os
from importlib import resources
from pathlib import Path

log = logging.getLogger(__name__)

STUDIO = "studio"


def shipped() -> Path:
  """The folder of the pre-trained studio weights that come with the package."""
  return Path(str(resources.files("anchor_jax"))) / "weights" / STUDIO


def is_shipped(name: str | os.PathLike) -> bool:
  """Whether a name is the word for the shipped weights and no folder."""
  return os.fspath(name) == STUDIO


def folder_of(name: str | os.PathLike) -> Path:
  """Returns the folder that a user names, which need not exist."""
  if not is_shipped(name):
    return Path(name)
  if os.path.isdir(STUDIO):
    log.warning('"studio" is the weights in the package: name the folder studio of this directory ./studio')
  return shipped()


def path_or_word(text: str) -> Path:
  """Returns the path in a flag: ./studio, of which pathlib would make the word, becomes an absolute path."""
  return Path(text) if text == STUDIO or not is_shipped(Path(text)) else Path(text).absolute()
