"""Paths that are no readable files; opening some of them blocks forever."""

import os
from pathlib import Path


def strange_files(folder: Path, suffix: str = "") -> dict[Path, str]:
  """Creates such paths in a folder; returns a pattern of the error message for each."""
  folder.mkdir(exist_ok=True)
  named = lambda name: folder / f"{name}{suffix}"
  os.mkfifo(named("pipe"))
  named("zero").symlink_to("/dev/zero")
  named("loop").symlink_to(named("loop").name)
  named("ping").symlink_to(named("pong").name)
  named("pong").symlink_to(named("ping").name)
  named("gone").symlink_to("nowhere")
  return {
    named("pipe"): "is a pipe",
    named("zero"): "is a device",
    named("loop"): "leads back to itself",
    named("ping"): "leads back to itself",
    named("gone"): "is a link to nowhere",
    named("x" * 5000): "longer than the system allows",
    named("null\0"): "not a valid file name|null character",
  }
