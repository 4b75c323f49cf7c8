"""Builds dataclasses from plain values with strict type checks, and validates fields of settings."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from anchor_jax.core.errors import UserError, one_line, suggestion


@dataclasses.dataclass(frozen=True)
class Within:
  """Bounds of a number, as in `Annotated[int, Within(1, 4096)]`; NaN is never within bounds."""

  least: float
  most: float


class SettingError(UserError):
  """An invalid value of a setting.

  Attributes:
    setting: its name; the reader of a config file prepends the names of enclosing groups.
    problem: the rest of the sentence.
  """

  def __init__(self, setting: str, problem: str):
    super().__init__(f"{setting} {problem}")
    self.setting, self.problem = setting, problem


def check(settings: Any, names: str, valid: Callable[[Any], bool], rule: str) -> None:
  """Raises SettingError for the first named setting whose value is invalid."""
  for name in names.split():
    value = getattr(settings, name)
    if not valid(value):
      raise SettingError(name, f"is {one_line(repr(value), 60)}: it must be {rule}")


def check_counts(settings: Any, names: str, least: int, most: int = 2**31 - 1) -> None:
  """Raises SettingError for the first named setting below `least` or above `most`."""
  check(settings, names, lambda value: value >= least, f"at least {least}")
  check(settings, names, lambda value: value <= most, f"at most {most}")


def check_choice(settings: Any, name: str, known: tuple[str, ...]) -> None:
  """Raises SettingError unless the setting has a known value."""
  value = getattr(settings, name)
  if value not in known:
    short = one_line(value, 60)
    raise SettingError(name, f'is "{short}": use one of {", ".join(known)}.{suggestion(short, known)}')


def check_names(settings: Any, name: str, known: tuple[str, ...], least: int = 1) -> None:
  """Raises SettingError unless a setting has at least `least` entries, all known and distinct."""
  value = getattr(settings, name)
  for word in (one_line(entry, 60) for entry in value if entry not in known):
    raise SettingError(name, f'has "{word}": use names of {", ".join(known)}.{suggestion(word, known)}')
  if not least <= len(set(value)) == len(value):
    raise SettingError(name, f"is {one_line(repr(value), 60)}: give at least {least} of {', '.join(known)}, each once")


def from_values(kind: type, values: Any, where: str, ignore_unknown: bool = False) -> Any:
  """Returns a dataclass built from a mapping; wrong types and unknown or missing keys are refused.

  Fields may be numbers, strings, booleans, dataclasses, tuples, dictionaries (`dict[str, ...]`), unions and literals of
  these, and `Annotated` with bounds (`Within`).

  Args:
    kind: the dataclass.
    values: field values by name.
    where: name of the group, for messages.
    ignore_unknown: ignore unknown keys, as in files of later versions.

  Raises:
    UserError: one line with the first wrong, unknown or missing key.
  """
  if not hasattr(values, "items"):
    raise UserError(f"{where} must be a group of settings, not {one_line(repr(values))}")
  hints = typing.get_type_hints(kind, include_extras=True)
  fields = {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}
  converted = {}
  for key, value in values.items():
    if key in fields:
      converted[key] = _convert(fields[key], value, f"{where}.{key}", ignore_unknown)
    elif not ignore_unknown:
      short = one_line(key, 60)
      raise UserError(f'unknown setting "{where}.{short}".{suggestion(short, fields)}')
  for field in dataclasses.fields(kind):
    if field.init and field.name not in converted and field.default is field.default_factory is dataclasses.MISSING:
      raise UserError(f"{where}.{field.name} is missing")
  try:
    return kind(**converted)
  except SettingError as error:
    raise SettingError(f"{where}.{error.setting}", error.problem) from None


def _convert(hint: Any, value: Any, where: str, ignore_unknown: bool) -> Any:
  if dataclasses.is_dataclass(hint):
    return from_values(typing.cast(type, hint), value, where, ignore_unknown)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Annotated:
    return _within(_convert(arguments[0], value, where, ignore_unknown), arguments[1], where)
  if origin in (typing.Union, types.UnionType):
    if bool in arguments and value in ("True", "False"):  # a flag whose default is a string gives a string
      return value == "True"
    optional = [option for option in arguments if option is not type(None)]
    inner = optional[0]
    if len(optional) == 1 and value is not None and (dataclasses.is_dataclass(inner) or not isinstance(inner, type)):
      return _convert(inner, value, where, ignore_unknown)  # its message is more specific
    for option in arguments:
      try:
        return _convert(option, value, where, ignore_unknown)
      except UserError:
        continue
  elif origin is tuple:
    if isinstance(value, list | tuple) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
      inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
      return tuple(_convert(kind, item, where, ignore_unknown) for kind, item in zip(inner, value, strict=True))
  elif origin is dict:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
      return {key: _convert(arguments[1], item, f"{where}.{key}", ignore_unknown) for key, item in value.items()}
  elif origin is typing.Literal:
    if any(type(value) is type(known) and value == known for known in arguments):
      return value
  elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
    return _float(value, where)
  elif hint is Any or (hint in (int, str, bool, type(None)) and type(value) is hint):
    return value
  raise UserError(f"{where} is {one_line(repr(value))}: expected {getattr(hint, '__name__', hint)}")


def _float(value: float, where: str) -> float:
  try:
    return float(value)
  except OverflowError:
    raise UserError(f"{where} is a number of {len(str(value))} digits: it must be smaller") from None


def _within(value: Any, bounds: Within, where: str) -> Any:
  for number in value if isinstance(value, tuple) else (value,):
    if number is not None and not bounds.least <= number <= bounds.most:
      raise UserError(f"{where} is {one_line(number, 40)}: it must be {bounds.least:g} to {bounds.most:g}")
  return value
