"""Identity of a prepared folder's records: a hash of their counts and of both ends of the large files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_SAMPLE = 2**20  # bytes at each end of a file of records that are hashed


def records_identity(folder: Path, meta: dict[str, Any]) -> str:
  """A hash of a prepared folder's records, which changes with their pictures, poses, videos or size.

  It does not change when the folder is moved or copied, or when people or videos are renamed.

  Args:
    folder: the prepared folder.
    meta: the contents of its meta.json.
  """
  videos = [(video["frames"], video["person"]) for video in meta["videos"]]
  facts = {"size": meta["size"], "videos": videos, "files": sorted(meta["files"].values())}
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  hash_files(digest, folder, meta)
  return digest.hexdigest()[:32]


def hash_files(digest: Any, folder: Path, meta: dict[str, Any]) -> None:
  """Updates a hash with both ends of the files of records."""
  for name in sorted(meta["files"]):
    with (folder / name).open("rb") as file:
      digest.update(file.read(_SAMPLE))
      file.seek(-min(_SAMPLE, file.seek(0, os.SEEK_END)), os.SEEK_END)
      digest.update(file.read(_SAMPLE))
