"""The folder for files that can be fetched or computed again."""

import os
from pathlib import Path


def cache_home() -> Path:
  """XDG_CACHE_HOME, or ~/.cache where that is not set or not an absolute path."""
  home = Path(os.environ.get("XDG_CACHE_HOME", ""))
  return home if home.is_absolute() else Path.home() / ".cache"
