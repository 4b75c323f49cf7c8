"""Distinguishes damaged checkpoints from ones that can't be read for other reasons, by the exception raised."""

import enum
import json
from pathlib import Path

from anchor_jax.core.errors import causes_of
from anchor_jax.files.manifest import find_damage


class Outcome(enum.IntEnum):
  """The outcome of reading a checkpoint, from best to worst."""

  RESTORED = 0
  DAMAGED = 1
  OTHER_SETTINGS = 2
  UNREADABLE = 3  # for a reason that may pass


# Prefixes of TensorStore's messages on files that are too short, fail their checksum, or are missing.
_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND")


class DamagedFiles(Exception):
  """Files have changed since they were written; the message names one."""


def raise_damage(folder: Path, share: tuple[int, int] = (0, 1)) -> None:
  """Raises DamagedFiles if files differ from the list in `folder`, see `find_damage`."""
  if damage := find_damage(folder, share):
    raise DamagedFiles(damage)


def outcome_of(error: BaseException) -> Outcome:
  """Returns the outcome that an error in reading a checkpoint means; DAMAGED only if one of its causes proves it."""
  causes = list(causes_of(error))
  if any(isinstance(cause, OSError | MemoryError) and not isinstance(cause, FileNotFoundError) for cause in causes):
    return Outcome.UNREADABLE
  messages = [str(cause) for cause in causes]
  if any("tree structures do not match" in text or "with the stored shape" in text for text in messages):
    return Outcome.OTHER_SETTINGS
  damaged = any(isinstance(cause, json.JSONDecodeError | FileNotFoundError | DamagedFiles) for cause in causes)
  damaged |= any(text.startswith(_DAMAGE) for text in messages)
  damaged |= any(isinstance(cause, KeyError) and "not found in the checkpoint" in str(cause) for cause in causes)
  return Outcome.DAMAGED if damaged else Outcome.UNREADABLE
