"""Which records a prepared folder holds, wherever it lies: known by numbers and by both ends of its large files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_SAMPLE = 2**20  # bytes at both ends of a file of records that are hashed


def records_identity(folder: Path, meta: dict[str, Any]) -> str:
  """Returns a name for the records of a prepared folder: another one for other pictures, poses, videos or sizes.

  A folder that was moved or copied keeps it, and so does one whose people or videos were given other names.

  Args:
    folder: the prepared folder.
    meta: what its meta.json holds.
  """
  videos = [(video["frames"], video["person"]) for video in meta["videos"]]
  facts = {"size": meta["size"], "videos": videos, "files": sorted(meta["files"].values())}
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  hash_files(digest, folder, meta)
  return digest.hexdigest()[:32]


def hash_files(digest: Any, folder: Path, meta: dict[str, Any]) -> None:
  """Adds both ends of the files of records to a hash."""
  for name in sorted(meta["files"]):
    with (folder / name).open("rb") as file:
      digest.update(file.read(_SAMPLE))
      file.seek(-min(_SAMPLE, file.seek(0, os.SEEK_END)), os.SEEK_END)
      digest.update(file.read(_SAMPLE))
