"""Base class of the network configurations: strict reading and writing of a config.json.

The files are those of diffusers and transformers. `from_json` raises for unsupported fields that would change the
computation. `to_json` writes what those libraries load; fields that only this package has are written if they are not
the default.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from anchor_jax.config.bounds import Bounds, problems
from anchor_jax.core.errors import UserError, one_line, suggestion

ConfigT = TypeVar("ConfigT", bound="Config")  # typing.Self is refused by the run-time type checker
ANY = object()  # in `ignored`: any value


def _frozen(value: Any) -> Any:
  return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclasses.dataclass(frozen=True)
class Config:
  """Base class: reads a config.json strictly, and writes it."""

  class_name: ClassVar[str] = ""
  own_fields: ClassVar[tuple[str, ...]] = ()  # fields that diffusers and transformers do not have
  layer_fields: ClassVar[tuple[str, ...]] = ()  # the own_fields that add parameters
  run_fields: ClassVar[tuple[str, ...]] = ("remat",)  # the own_fields that change no result: each run has its own
  file_defaults: ClassVar[Mapping[str, Any]] = {}  # defaults of the library that wrote the file, for absent fields
  ignored: ClassVar[Mapping[str, Any]] = {}  # unsupported field -> values (or ANY) with no effect here
  bounds: ClassVar[Bounds] = {}  # of the numbers and names among the fields

  def __post_init__(self) -> None:
    self._check({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

  @classmethod
  def _check(cls, values: Mapping[str, Any]) -> None:
    """Raises UserError for the first of the fields that is of another type, or out of bounds."""
    for problem in problems(cls, values, cls.bounds):
      raise UserError(f"{cls.class_name} configuration: {problem}")

  @classmethod
  def from_json(cls: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """The configuration in the dictionary of a config.json.

    Raises:
      UserError: a field has a value that is not supported here, or no valid value.
    """
    known = {f.name for f in dataclasses.fields(cls)}
    values, refused = dict(cls.file_defaults), []
    for name, value in fields.items():
      value = _frozen(value)
      if name in known:
        values[name] = value
      elif not cls._is_ignored(name, value):
        refused.append(f"{one_line(name, 60)}={one_line(repr(value), 60)}" + suggestion(name[:60], known))
    if refused:
      more = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
      raise UserError(
        f"{cls.class_name} configuration has fields that are not supported here: {', '.join(refused[:8])}{more}"
      )
    cls._check(values)
    try:
      return cls(**values)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
      raise UserError(f"{cls.class_name} configuration has a value of the wrong kind ({one_line(error)})") from error

  @classmethod
  def _is_ignored(cls, name: str, value: Any) -> bool:
    if name.startswith("_") or value is None or value is False:
      return True
    allowed = cls.ignored.get(name, ())
    if allowed is ANY or value in allowed:
      return True
    return isinstance(value, tuple) and bool(value) and all(cls._is_ignored(name, entry) for entry in value)

  def to_json(self) -> dict[str, Any]:
    """The dictionary of a config.json, which `from_json` turns back into this configuration."""
    fields: dict[str, Any] = {"_class_name": self.class_name}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name in self.own_fields and value == field.default:
        continue
      fields[field.name] = list(value) if isinstance(value, tuple) else value
    return fields

  def with_own_fields(self: ConfigT, other: "Config") -> ConfigT:
    """This configuration with `other`'s values of `own_fields`.

    What this configuration says of its weights is kept where `other` has the default alone, which nobody asked for.

    Raises:
      UserError: `other` has different non-default values of `layer_fields` than this configuration.
    """
    changes = {}
    for name in self.own_fields:
      own, asked, default = getattr(self, name), getattr(other, name), self.__dataclass_fields__[name].default
      if name in self.layer_fields and own != default:
        self._require(asked in (own, default), f"{name} is {own} in the weights and {asked} in the settings")
      if asked == default and name not in self.run_fields:
        asked = own
      changes[name] = asked
    return dataclasses.replace(self, **changes)

  def _require(self, true: bool, message: str) -> None:
    if not true:
      raise UserError(f"{self.class_name} configuration: {message}")
