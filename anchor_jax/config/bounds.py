"""Bounds of a network's settings: the type of each field of a frozen dataclass, and its range or known names."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from anchor_jax.core.errors import one_line, suggestion

_MOST_ENTRIES = 16  # of a tuple, such as one entry per level


@dataclasses.dataclass(frozen=True)
class Span:
  """The numbers from `least` to `most`, both inclusive; never NaN."""

  least: float
  most: float

  def __contains__(self, value: float) -> bool:
    return self.least <= value <= self.most

  def __str__(self) -> str:
    return f"between {self.least:g} and {self.most:g}"


Bounds = Mapping[str, Span | tuple[str, ...]]
WIDTH = Span(1, 65536)  # of a layer
COUNT = Span(1, 64)  # of layers
EPSILON = Span(1e-12, 1.0)


def problems(kind: type, values: Mapping[str, Any], bounds: Bounds) -> Iterator[str]:
  """Yields one message per wrong value: its type is wrong, or a number or name is not within `bounds`.

  Args:
    kind: a dataclass whose fields are numbers, strings, booleans, None, or tuples of one of these types.
    values: by name of the field.
    bounds: by name of the field. Bounds of a tuple hold for each entry, and it must not be empty. Fields without bounds
      may have any value of their type.
  """
  hints = _hints(kind)
  for name, value in values.items():
    allowed = bounds.get(name)
    setting = f"{name} is {one_line(repr(value), 60)}"
    if not _fits(hints[name], value):
      yield f"{setting}: it must be {_described(hints[name])}"
    elif isinstance(value, tuple) and not 0 < len(value) <= _MOST_ENTRIES:
      yield f"{name} is empty" if not value else f"{name} has {len(value)} entries: it must have 1 to {_MOST_ENTRIES}"
    elif isinstance(allowed, Span):
      if not all(entry in allowed for entry in _entries(value) if entry is not None):
        yield f"{setting}: it must be {allowed}"
    elif allowed is not None and (wrong := [entry for entry in _entries(value) if not _named(entry, allowed)]):
      word = one_line(wrong[0], 60)
      yield f"{name} has {word!r}, which is not supported; use {' or '.join(allowed)}.{suggestion(word, allowed)}"


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
  return typing.get_type_hints(kind)


def _entries(value: Any) -> tuple[Any, ...]:
  return value if isinstance(value, tuple) else (value,)


def _named(entry: Any, allowed: tuple[str, ...]) -> bool:
  return isinstance(entry, bool) or entry in allowed  # a boolean setting that may also be a name


def _fits(hint: Any, value: Any) -> bool:
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(option, value) for option in arguments)
  if origin is tuple:
    return isinstance(value, tuple) and all(_fits(arguments[0], entry) for entry in value)
  if hint in (int, float) and isinstance(value, bool):
    return False
  if hint is float:
    return isinstance(value, float | int) and -math.inf < value < math.inf
  return isinstance(value, hint)


def _described(hint: Any) -> str:
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(_described(option) for option in arguments)
  if origin is tuple:
    return f"a list of {_described(arguments[0]).split(' ', 1)[1]}s"
  names = {int: "an integer", float: "a finite number", str: "a string", bool: "true or false", type(None): "null"}
  return names[hint]
