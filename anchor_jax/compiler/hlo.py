"""Parses the collectives in the HLO text of a compiled program: their kinds, and the bytes that devices exchange."""

import dataclasses
import re
from collections import Counter

import numpy as np

_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One operation in which devices exchange data.

  Attributes:
    kind: all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute.
    elements: number of elements of its result.
    sent: bytes that one device sends, with a ring algorithm.
  """

  kind: str
  elements: int
  sent: int


def collective_bytes(text: str) -> dict[str, int]:
  """The bytes that one device sends for each kind of collective in a program; loop bodies count once."""
  totals: Counter[str] = Counter()
  for found in collectives(text):
    totals[found.kind] += found.sent
  return dict(totals)


def collectives(text: str) -> list[Collective]:
  """All collectives in a program.

  XLA may split a collective into several operations to overlap it with computation; these share a channel and count as
  one.
  """
  kinds = "|".join(_COLLECTIVES)
  found, channels = [], set()
  text = re.sub(r"/\*.*?\*/", "", text)  # comments number the elements of long tuples
  for result, kind, start, rest in re.findall(rf"= (\(?[^=]*?) ({kinds})(-start)?\((.*)", text):
    channel = re.search(r"channel_id=(\d+)", rest)
    if channel:
      if channel[1] in channels:
        continue
      channels.add(channel[1])
    parts = [(name, _count(axes)) for name, axes in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    if start:  # the result also has u32 context tokens and, except for all-reduce, the operands before the results
      parts = [part for part in parts if part[1] > 1 or part[0] != "u32"]
      parts = parts if kind == "all-reduce" else parts[len(parts) // 2 :]
    size = sum(_BYTES.get(name, 4) * count for name, count in parts)
    found.append(Collective(kind, sum(count for _, count in parts), round(size * _sent(kind, _group(rest)))))
  return found


def _sent(kind: str, devices: int) -> float:
  """The bytes that a device sends, as a multiple of the size of the result."""
  remote = 1 - 1 / devices  # share that is on other devices
  factors = {"all-reduce": 2 * remote, "reduce-scatter": devices - 1, "collective-permute": 1}
  return factors.get(kind, remote)


def _count(axes: str) -> int:
  return int(np.prod([int(size) for size in axes.split(",") if size]))


def _group(attributes: str) -> int:
  """The number of devices in a group, from the attributes of a collective."""
  named = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", attributes)
  if named:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    return _count(",".join(sizes[axis] for axis in re.findall(r"'(\w+)'", named[2])))
  iota = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
  if iota:
    return int(iota[1])
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
  return len(listed[1].split(",")) if listed else 2
