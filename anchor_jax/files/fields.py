"""Reading files of facts: JSON whose every field is checked once, by the types of a dataclass, as settings are."""

import os
from typing import Any, TypeVar

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.values import from_values
from anchor_jax.files.inputs import LARGEST_TEXT, parse_json, read_bytes

FieldsT = TypeVar("FieldsT")


def read_fields(
  path: str | os.PathLike,
  kind: type[FieldsT],
  what: str = "file",
  remedy: str = "make it again",
  nan: bool = False,
  most: int = LARGEST_TEXT,
  version: int | str | None = None,
) -> FieldsT:
  """Returns dataclass `kind` of a JSON file; keys that it does not have are left out.

  Args:
    path: the file.
    kind: its fields' types are checked, see `config_values.from_values`; what `__post_init__` raises as UserError or
      ValueError counts as damage too.
    what, remedy, nan: see `inputs.read_json`.
    most: bytes that such a file has at most.
    version: what its "format" must be; None: it has none.

  Raises:
    UserError: one line: there is no such regular file, it is no JSON, a field is missing, of another type or out of
      bounds.
  """
  values = parse_json(read_bytes(path, what, most), path, remedy, nan)
  if version is not None and isinstance(values, dict) and "format" in values and values["format"] != version:
    raise UserError(f"{path} has format {one_line(values['format'], 40)}, this version reads {version}: {remedy}")
  return fields_of(kind, values, path, remedy)


def fields_of(kind: type[FieldsT], values: Any, path: str | os.PathLike, remedy: str = "make it again") -> FieldsT:
  """Returns dataclass `kind` of the values of a JSON file; see `read_fields`."""
  try:
    return from_values(kind, values, os.path.basename(path), others=True)
  except (UserError, ValueError) as error:
    raise UserError(f"{path} is damaged ({error}): {remedy}") from None
