"""Reads JSON files into dataclasses, whose types check every field, as those of settings do."""

import os
from typing import Any, TypeVar

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.values import from_values
from anchor_jax.files.inputs import LARGEST_TEXT, parse_json, read_bytes

FieldsT = TypeVar("FieldsT")


def read_fields(
  path: str | os.PathLike,
  kind: type[FieldsT],
  noun: str = "file",
  remedy: str = "make it again",
  nan: bool = False,
  max_bytes: int = LARGEST_TEXT,
  version: int | str | None = None,
) -> FieldsT:
  """Returns a dataclass with the fields of a JSON file; unknown keys are ignored.

  Args:
    path: the file.
    kind: the dataclass; field types are checked, see `core.values.from_values`. A UserError or ValueError from
      `__post_init__` is reported as damage.
    noun, remedy, nan: see `inputs.read_json`.
    max_bytes: larger files are refused.
    version: the required value of "format", if the file has one; None accepts all.

  Raises:
    UserError: there is no such regular file, it is not JSON, or a field is missing, has another type or is out of
      bounds.
  """
  values = parse_json(read_bytes(path, noun, max_bytes), path, remedy, nan)
  if version is not None and isinstance(values, dict) and "format" in values and values["format"] != version:
    raise UserError(f"{path} has format {one_line(values['format'], 40)}, this version reads {version}: {remedy}")
  return fields_of(kind, values, path, remedy)


def fields_of(kind: type[FieldsT], values: Any, path: str | os.PathLike, remedy: str = "make it again") -> FieldsT:
  """Returns dataclass `kind` from the parsed values of a JSON file; see `read_fields`."""
  try:
    return from_values(kind, values, os.path.basename(path), ignore_unknown=True)
  except (UserError, ValueError) as error:
    raise UserError(f"{path} is damaged ({error}): {remedy}") from None
