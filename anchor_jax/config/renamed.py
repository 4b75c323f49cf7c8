"""Settings that were renamed or removed, and how config files, stored config.json and flags may still give them."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from anchor_jax.core.errors import UserError, one_line

RENAMED = {"data.appearance": "data.pose_channels"}  # old name -> name, below config
REMOVED = {"sample.window_weights": "uniform"}  # name -> the value that may still be given, which has no effect

_Group = TypeVar("_Group", bound=type)


def current_name(name: str) -> str:
  """The name of a setting that is given under this name or an old one, dotted, below config."""
  return RENAMED.get(name, name)


def with_current_names(values: Any) -> Any:
  """Nested settings with current names, without removed ones; a copy, or `values` itself if all are current.

  Raises:
    UserError: a setting is given under both names, with different values, or a removed one has another value.
  """
  renamed = [(old, new) for old, new in RENAMED.items() if _has(values, old)]
  removed = [name for name in REMOVED if _has(values, name)]
  if not renamed and not removed:
    return values
  values = _copy(values)
  for name in removed:
    group, key = _group(values, name)
    _check_removed(name, group.pop(key))
  for old, new in renamed:
    group, key = _group(values, old)
    value = group.pop(key)
    other, other_key = _group(values, new)
    if other_key in other and other[other_key] != value:
      raise _conflict(old, value, new, other[other_key])
    other[other_key] = value
  return values


def renamed_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
  """Values by dotted name, with current names. Raises UserError as `with_current_names` does."""
  result: dict[str, Any] = {}
  sources: dict[str, str] = {}
  for name, value in changes.items():
    current = current_name(name)
    if current in result and result[current] != value:
      raise _conflict(name, value, sources[current], result[current])
    result[current], sources[current] = value, name
  return result


def renamed_flags(arguments: Iterable[str], flag: str = "config") -> list[str]:
  """Command-line arguments in which flags of old names, --config.NAME or --config.NAME=VALUE, have current names.

  Flags of removed settings are dropped.

  Raises:
    UserError: both names are given with different values, or a removed setting has another value.
  """
  result, values = [], {}
  for argument in arguments:
    head, equals, value = argument.partition("=")
    dashes = head[: len(head) - len(head.lstrip("-"))]
    name = head[len(dashes) :].removeprefix(f"{flag}.")
    if dashes in ("-", "--") and head == f"{dashes}{flag}.{name}":
      if name in REMOVED and equals:
        _check_removed(name, value)
        continue
      current = current_name(name)
      if equals and current in RENAMED.values():
        seen, earlier = values.setdefault(current, (name, value))
        if seen != name and earlier != value:
          raise _conflict(name, value, seen, earlier)
      argument = f"{dashes}{flag}.{current}{equals}{value}"
    result.append(argument)
  return result


def accepts_old_names(**names: str) -> Callable[[_Group], _Group]:
  """Class decorator of a group of settings: its constructor and attributes also have these old names (old="new").

  `dataclasses.replace` passes every field, so an old name beside all fields replaces the value of the new one.
  """

  def decorate(group: _Group) -> _Group:
    initialize: Callable[..., None] = group.__init__

    @functools.wraps(initialize)
    def __init__(self, *args, **values):
      replaces = not args and set(group.__dataclass_fields__) <= set(values)
      for old, new in names.items():
        if old in values:
          value = values.pop(old)
          if new in values and values[new] != value and not replaces:
            raise _conflict(old, value, new, values[new])
          values[new] = value
      initialize(self, *args, **values)

    group.__init__ = __init__
    for old, new in names.items():
      setattr(group, old, property(lambda self, new=new: getattr(self, new)))
    return group

  return decorate


def _check_removed(name: str, value: Any) -> None:
  if value != REMOVED[name]:
    shown = one_line(repr(value), 40)
    raise UserError(f"config.{name} {shown} is no longer supported: remove it, or set {REMOVED[name]!r}")


def _conflict(old: str, old_value: Any, new: str, value: Any) -> UserError:
  if new in RENAMED:  # the two are given in either order
    old, old_value, new, value = new, value, old, old_value
  old_text, text = one_line(repr(old_value), 40), one_line(repr(value), 40)
  return UserError(f"{new} is {text} and {old}, its old name, is {old_text}: give {new} only")


def _steps(values: Any, name: str) -> Iterator[Any]:
  for key in name.split("."):
    values = values[key] if hasattr(values, "items") and key in values else None
    yield values


def _has(values: Any, name: str) -> bool:
  group, _, key = name.rpartition(".")
  holder = values
  if group:
    *_, holder = _steps(values, group)
  return hasattr(holder, "items") and key in holder


def _group(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
  """The innermost group of a dotted name, created if it is missing, and the last key."""
  *groups, key = name.split(".")
  for group in groups:
    values = values.setdefault(group, {})
  return values, key


def _copy(values: Any) -> Any:
  return {key: _copy(value) for key, value in values.items()} if hasattr(values, "items") else values
