"""Base class of network configurations: strict reading and writing of the config.json of diffusers and transformers.

`from_json` raises for unsupported fields that would change the computation. `to_json` writes what those libraries load;
fields that only this package has are written unless they have the default.
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
  """Base class of a network configuration."""

  class_name: ClassVar[str] = ""
  own_fields: ClassVar[tuple[str, ...]] = ()  # fields unknown to diffusers and transformers
  layer_fields: ClassVar[tuple[str, ...]] = ()  # own_fields that add parameters
  run_fields: ClassVar[tuple[str, ...]] = ("remat",)  # own_fields that change no result; each run sets its own
  file_defaults: ClassVar[Mapping[str, Any]] = {}  # of the library that wrote the file, for missing fields
  ignored: ClassVar[Mapping[str, Any]] = {}  # unsupported field -> values without effect, or ANY
  bounds: ClassVar[Bounds] = {}  # of numbers and names

  def __post_init__(self) -> None:
    self._check({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

  @classmethod
  def _check(cls, values: Mapping[str, Any]) -> None:
    """Raises UserError for the first field with a wrong type or out of bounds."""
    for problem in problems(cls, values, cls.bounds):
      raise UserError(f"{cls.class_name} configuration: {problem}")

  @classmethod
  def from_json(cls: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """The configuration in the dictionary of a config.json.

    Raises:
      UserError: a field has an unsupported or invalid value.
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
    """The dictionary of a config.json, which `from_json` reads back as this configuration."""
    fields: dict[str, Any] = {"_class_name": self.class_name}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name in self.own_fields and value == field.default:
        continue
      fields[field.name] = list(value) if isinstance(value, tuple) else value
    return fields

  def with_own_fields(self: ConfigT, other: "Config") -> ConfigT:
    """This configuration with the values of `own_fields` that `other` asks for.

    A default in `other` is no request: there this configuration's value, which belongs to its weights, stays.

    Raises:
      UserError: `layer_fields` of both have different values that are not the default.
    """
    changes = {}
    for name in self.own_fields:
      own, requested = getattr(self, name), getattr(other, name)
      default = self.__dataclass_fields__[name].default
      if name in self.layer_fields and own != default:
        self._require(requested in (own, default), f"{name} is {own} in the weights and {requested} in the settings")
      if requested == default and name not in self.run_fields:
        requested = own
      changes[name] = requested
    return dataclasses.replace(self, **changes)

  def _require(self, true: bool, message: str) -> None:
    if not true:
      raise UserError(f"{self.class_name} configuration: {message}")
