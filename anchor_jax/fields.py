"""Reading files of facts: JSON whose every field is checked once, by the types of a dataclass, as settings are."""

import os
from typing import Any, TypeVar

from anchor_jax.config_values import from_values
from anchor_jax.errors import UserError
from anchor_jax.inputs import read_json

FieldsT = TypeVar("FieldsT")


def read_fields(
  path: str | os.PathLike, kind: type[FieldsT], what: str = "file", remedy: str = "make it again", nan: bool = False
) -> FieldsT:
  """Returns dataclass `kind` of a JSON file; keys that it does not have are left out.

  Args:
    path: the file.
    kind: its fields' types are checked, see `config_values.from_values`; what `__post_init__` raises as UserError or
      ValueError counts as damage too.
    what, remedy, nan: see `inputs.read_json`.

  Raises:
    UserError: one line: there is no such regular file, it is no JSON, a field is missing, of another type or out of
      bounds.
  """
  return fields_of(kind, read_json(path, what, remedy, nan), path, remedy)


def fields_of(kind: type[FieldsT], values: Any, path: str | os.PathLike, remedy: str = "make it again") -> FieldsT:
  """Returns dataclass `kind` of the values of a JSON file; see `read_fields`."""
  try:
    return from_values(kind, values, os.path.basename(path), others=True)
  except (UserError, ValueError) as error:
    raise UserError(f"{path} is damaged ({error}): {remedy}") from None
