"""Parts of a network's file: the same TensorFlow Lite file with fewer operators, and other inputs and outputs."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

# Fields of the format's tables, as the format numbers them: of a model, a graph, an operator's code, an operator.
_CODES, _GRAPHS, _SIGNATURES = 6, 8, 18
_INPUTS, _OUTPUTS, _OPERATORS = 6, 8, 10
_CUSTOM = 6
_CODE, _READ, _WRITTEN, _OPTIONS = 4, 6, 8, 14


class Operator(NamedTuple):
  """An operator of a graph.

  Attributes:
    custom: its name if LiteRT does not define it, else empty.
    inputs, outputs: numbers of its tensors; -1 for an input that is left out.
    options: of a custom operator, as stored.
    place: of its table in the file.
  """

  custom: str
  inputs: list[int]
  outputs: list[int]
  options: bytes
  place: int


class Graph:
  """The graph of a TensorFlow Lite file.

  Attributes:
    inputs, outputs: numbers of its tensors.
    operators: in the order in which they run.
  """

  def __init__(self, content: bytes):
    """Reads the graph.

    Raises:
      ImportError: ai-edge-litert is not installed, which brings flatbuffers.
    """
    from flatbuffers.table import Table

    self._content = content
    self._model: Any = Table(content, _number(content, 0))
    rows = lambda table, field: [Table(content, place) for place in _places(table, field)]
    (self._graph,) = rows(self._model, _GRAPHS)
    names = [_bytes(code, _CUSTOM).decode() for code in rows(self._model, _CODES)]
    self.inputs, self.outputs = _numbers(self._graph, _INPUTS), _numbers(self._graph, _OUTPUTS)
    self.operators = [
      Operator(
        names[_number(content, one.Pos + one.Offset(_CODE)) if one.Offset(_CODE) else 0],
        _numbers(one, _READ), _numbers(one, _WRITTEN), _bytes(one, _OPTIONS), one.Pos,
      )
      for one in rows(self._graph, _OPERATORS)
    ]  # fmt: skip

  def part(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """The file with only the operators that compute `outputs` from `inputs` and constants.

    The file is patched, which takes milliseconds: rewriting it from objects takes hundreds.
    """
    chosen, file = self._needed(outputs, set(inputs)), bytearray(self._content)
    # A reference is the distance to what it refers to, which follows it: operators move up within their list, and lists
    # of tensors, which may grow, go to the end.
    start = self._graph.Vector(self._graph.Offset(_OPERATORS))
    struct.pack_into("<I", file, start - 4, len(chosen))
    for number, operator in enumerate(chosen):
      struct.pack_into("<I", file, start + 4 * number, operator.place - (start + 4 * number))
    for field, tensors in ((_INPUTS, inputs), (_OUTPUTS, outputs)):
      file += bytes(-len(file) % 4)
      reference = self._graph.Pos + self._graph.Offset(field)
      struct.pack_into("<I", file, reference, len(file) - reference)
      file += struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
    signatures = self._model.Offset(_SIGNATURES)
    if signatures:  # they name the old inputs and outputs
      struct.pack_into("<I", file, self._model.Vector(signatures) - 4, 0)
    return bytes(file)

  def border(self, first: Sequence[int], others: Sequence[int]) -> list[int]:
    """The tensors from which `others` can be computed once `first` are: outputs of the operators that those need."""
    ahead = self._needed(first, set())
    made = {tensor for operator in ahead for tensor in operator.outputs}
    after = [operator for operator in self._needed(others, made) if operator not in ahead]
    return sorted({tensor for operator in after for tensor in operator.inputs} & made)

  def _needed(self, outputs: Sequence[int], stops: set[int]) -> list[Operator]:
    produced = {tensor: number for number, operator in enumerate(self.operators) for tensor in operator.outputs}
    found, todo = set(), list(outputs)
    while todo:
      tensor = todo.pop()
      number = None if tensor in stops else produced.get(tensor)
      if number is not None and number not in found:
        found.add(number)
        todo += self.operators[number].inputs
    return [self.operators[number] for number in sorted(found)]


def _number(content: bytes, place: int) -> int:
  return struct.unpack_from("<I", content, place)[0]


def _bytes(table: Any, field: int) -> bytes:
  """A list of bytes, or a text; empty where it is left out."""
  offset = table.Offset(field)
  start = table.Vector(offset) if offset else 0
  return bytes(table.Bytes[start : start + table.VectorLen(offset)]) if offset else b""


def _numbers(table: Any, field: int) -> list[int]:
  offset = table.Offset(field)
  return list(struct.unpack_from(f"<{table.VectorLen(offset)}i", table.Bytes, table.Vector(offset))) if offset else []


def _places(table: Any, field: int) -> list[int]:
  """The places of the tables in a list of tables."""
  offset = table.Offset(field)
  start = table.Vector(offset)
  return [place + _number(table.Bytes, place) for place in range(start, start + 4 * table.VectorLen(offset), 4)]
