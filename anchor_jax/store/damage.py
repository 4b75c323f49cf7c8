"""Tells a damaged checkpoint from one that can't be read for another reason, by the error that reading it raised."""

import enum
import json
from pathlib import Path

from anchor_jax.core.errors import causes_of
from anchor_jax.files.manifest import find_damage


class Outcome(enum.IntEnum):
  """What became of reading a checkpoint, from best to worst."""

  RESTORED = 0
  DAMAGED = 1
  OTHER_SETTINGS = 2
  UNREADABLE = 3  # for a reason that may pass


# How TensorStore begins its messages about files that are too short, fail their checksum, or are not there.
_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND")


class DamagedFiles(Exception):
  """Files are not as they were written; says which."""


def raise_damage(folder: Path, share: tuple[int, int] = (0, 1)) -> None:
  """Raises DamagedFiles where files differ from the list that their writer left in `folder`, see `find_damage`."""
  if damage := find_damage(folder, share):
    raise DamagedFiles(damage)


def judge(error: BaseException) -> Outcome:
  """What an error in reading a checkpoint says about it; DAMAGED only where one of its causes proves that."""
  causes = list(causes_of(error))
  if any(isinstance(cause, OSError | MemoryError) and not isinstance(cause, FileNotFoundError) for cause in causes):
    return Outcome.UNREADABLE
  messages = [str(cause) for cause in causes]
  if any("tree structures do not match" in text or "with the stored shape" in text for text in messages):
    return Outcome.OTHER_SETTINGS
  lost = any(isinstance(cause, json.JSONDecodeError | FileNotFoundError | DamagedFiles) for cause in causes)
  lost |= any(text.startswith(_DAMAGE) for text in messages)
  lost |= any(isinstance(cause, KeyError) and "not found in the checkpoint" in str(cause) for cause in causes)
  return Outcome.DAMAGED if lost else Outcome.UNREADABLE
