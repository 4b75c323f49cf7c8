"""Names that are no files which can be read: opening some of them waits forever."""

import os
from pathlib import Path


def strange_files(folder: Path, suffix: str = "") -> dict[Path, str]:
  """Makes them in a folder; returns what the line that refuses each one says (a regular expression)."""
  folder.mkdir(exist_ok=True)
  named = lambda name: folder / f"{name}{suffix}"
  os.mkfifo(named("pipe"))
  named("zero").symlink_to("/dev/zero")
  named("loop").symlink_to(named("loop").name)
  named("there").symlink_to(named("back").name)
  named("back").symlink_to(named("there").name)
  named("gone").symlink_to("nowhere")
  return {
    named("pipe"): "is a pipe",
    named("zero"): "is a device",
    named("loop"): "leads back to itself",
    named("there"): "leads back to itself",
    named("gone"): "is a link to nowhere",
    named("x" * 5000): "longer than the system allows",
    named("null\0"): "not a valid file name|null character",
  }
