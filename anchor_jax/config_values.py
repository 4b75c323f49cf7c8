"""Strict reading of dataclasses from plain values, and the checks that a group of settings makes of its own fields."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any

from anchor_jax.errors import UserError, suggestion


class SettingError(UserError):
  """A setting whose value cannot be used.

  Attributes:
    setting: name of the setting, to which the reader of a config file adds the groups that it is in.
    problem: the rest of the sentence.
  """

  def __init__(self, setting: str, problem: str):
    super().__init__(f"{setting} {problem}")
    self.setting, self.problem = setting, problem


def check(settings: Any, names: str, valid: Callable[[Any], bool], rule: str) -> None:
  """Raises SettingError for the first of the named settings whose value is not valid."""
  for name in names.split():
    value = getattr(settings, name)
    if not valid(value):
      raise SettingError(name, f"is {value!r}: it must be {rule}")


def check_counts(settings: Any, names: str, least: int) -> None:
  """Raises SettingError for the first of the named settings that is below `least`."""
  check(settings, names, lambda value: value >= least, f"at least {least}")


def check_choice(settings: Any, name: str, known: tuple[str, ...]) -> None:
  """Raises SettingError unless the named setting is one of the known ones."""
  value = getattr(settings, name)
  if value not in known:
    raise SettingError(name, f'is "{value}": use one of {", ".join(known)}.{suggestion(value, known)}')


def from_values(kind: type, values: Any, where: str) -> Any:
  """Builds dataclass `kind` from a mapping, refusing unknown keys and values of another type."""
  if not hasattr(values, "items"):
    raise UserError(f"{where} must be a group of settings, not {values!r}")
  hints = typing.get_type_hints(kind)
  fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
  made = {}
  for key, value in values.items():
    if key not in fields:
      raise UserError(f'unknown setting "{where}.{key}".{suggestion(key, fields)}')
    made[key] = _convert(fields[key], value, f"{where}.{key}")
  try:
    return kind(**made)
  except SettingError as error:
    raise SettingError(f"{where}.{error.setting}", error.problem) from None


def _convert(hint: Any, value: Any, where: str) -> Any:
  if dataclasses.is_dataclass(hint):
    return from_values(typing.cast(type, hint), value, where)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if bool in arguments and value in ("True", "False"):  # a flag whose default is text gives text
      return value == "True"
    for option in arguments:
      try:
        return _convert(option, value, where)
      except UserError:
        continue
  elif origin is tuple:
    if isinstance(value, list | tuple):
      inner = arguments[0]
      return tuple(_convert(inner, item, where) for item in value)
  elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
    return float(value)
  elif hint is Any or (hint in (int, str, bool, type(None)) and type(value) is hint):
    return value
  raise UserError(f"{where} is {value!r}: expected {getattr(hint, '__name__', hint)}")
