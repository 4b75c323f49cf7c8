"""Estimates the time of a compiled TPU program from its HLO text: the compiler's cycles, times trip counts of loops.

XLA:TPU writes `estimated_cycles` next to every fusion that it has scheduled. Other operations are estimated here:

- A Pallas attention kernel takes the longest of three times: its matrix products (depth padded to 128 lanes) at the
  chip's peak, `_VECTOR_OPS` operations per logit on the vector unit, and reading its operands and writing its results
  once. Transposing blocks inside it counts as free.
- Any other kernel takes the last of these three.
- A collective takes the bytes that a chip sends over the rate of its links along one axis of the torus. A collective
  that is started and awaited separately, or fused with computation, counts as hidden behind computation; its pieces,
  which share a channel, count once.
- Asynchronous copies count as hidden. A loop whose trip count is not in the text counts `unknown_trips` times.

So the sum is a model, not a measurement: it ignores stalls, skew between chips and the host.
"""

import dataclasses
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from anchor_jax.compiler.chips import Chip
from anchor_jax.compiler.hlo import collectives

KINDS = ("convolution", "matrix product", "attention", "normalization", "elementwise", "copies", "collectives")
_VECTOR_OPS = 10  # per logit: scale, mask, maximum, difference, exponential, sum, casts
_LANES = 128
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2}
_MOVES = {"copy", "transpose", "reshape", "bitcast", "slice", "concatenate", "pad", "broadcast", "convert"}
_MOVES |= {"parameter", "constant", "tuple", "get-tuple-element", "dynamic-slice", "dynamic-update-slice", "iota"}
_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3}
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][\w-]*)\((.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_NO_MODULE = re.compile(
  r"^(jit|jvp|transpose|vmap|pjit|shard_map)\b|^(while|body|cond|closed_call|checkpoint|remat.*|static_sparsity_splash)$"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation: its name, result as text, operation, and the rest of the line."""

  name: str
  result: str
  op: str
  rest: str

  def called(self, attribute: str) -> str:
    """The name of the computation in an attribute (calls, body, condition, to_apply); "" if there is none."""
    found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.rest)
    return found[1] if found else ""

  @property
  def op_name(self) -> str:
    """The path of modules and the primitive that it comes from, as written by JAX; "" if unknown."""
    found = re.search(r'op_name="([^"]*)"', self.rest)
    return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds of one run of a program on one chip.

  Attributes:
    kinds: by kind, see `KINDS`; of collectives, those that are not hidden.
    groups: by (kind, module), with layer numbers replaced by *.
    hidden: of collectives that overlap computation.
    unknown_loops: number of loops whose trip count is not in the text.
    unestimated: number of instructions that move or compute data and are not included.
  """

  kinds: Mapping[str, float]
  groups: Mapping[tuple[str, str], float]
  hidden: float
  unknown_loops: int
  unestimated: int

  @property
  def seconds(self) -> float:
    """The sum, or the time of the collectives alone if that is longer."""
    return max(sum(self.kinds.values()), self.hidden + self.kinds.get("collectives", 0.0))

  def table(self, rows: int = 10) -> str:
    """The kinds and the `rows` most expensive groups, as lines of text."""
    share = lambda spent: f"{1e3 * spent:10.1f} ms {100 * spent / max(self.seconds, 1e-12):5.1f} %"
    lines = [f"{'estimated time (a model)':40s}{1e3 * self.seconds:10.1f} ms"]
    lines += [f"  {kind:38s}{share(self.kinds[kind])}" for kind in KINDS if self.kinds.get(kind)]
    lines.append(f"  {'collectives, hidden behind the others':38s}{1e3 * self.hidden:10.1f} ms")
    if self.unknown_loops:
      lines.append(f"  loops without a known trip count: {self.unknown_loops}")
    ranked = sorted(self.groups.items(), key=lambda item: -item[1])[:rows]
    return "\n".join(lines + [f"{share(spent)}  {kind}: {module}" for (kind, module), spent in ranked])


def parse_computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """The computations of a program by name, and the name of its entry computation."""
  found: dict[str, list[Instruction]] = {}
  current, entry = "", ""
  for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
    if head := _HEAD.match(line):
      current = head[2]
      found[current] = []
      entry = current if head[1] else entry
    elif current and (match := _LINE.match(line)):
      found[current].append(Instruction(*match.groups()))
    elif current and found[current] and not re.match(r"\}(?!\})", line):  # the metadata of kernels spans several lines
      last = found[current][-1]
      found[current][-1] = dataclasses.replace(last, rest=f"{last.rest} {line}")
  return found, entry


def trip_count(computations: Mapping[str, list[Instruction]], loop: Instruction) -> int | None:
  """How often a loop runs: its known trip count, or the one integer its counter is compared with; None if unknown."""
  if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
    return int(known[1])
  condition = computations.get(loop.called("condition"), [])
  limits = {i.name: re.match(r"(\d+)\)", i.rest) for i in condition if i.op == "constant"}
  for i in condition:
    if i.op == "compare" and "direction=LT" in i.rest:
      named = [limits[name] for name in re.findall(r"%([\w.-]+)", i.rest.split(")")[0]) if limits.get(name)]
      return int(named[0][1]) if len(named) == 1 and named[0] else None
  return None


def estimate(text: str, chip: Chip, unknown_trips: int = 1) -> Estimate:
  """The estimated time of a program on a chip; see this module's docstring.

  Args:
    text: HLO of the compiled program of one chip.
    chip: with clock, bandwidth and link rate.
    unknown_trips: trip count of loops whose own is not in the text.
  """
  computations, entry = parse_computations(text)
  groups: dict[tuple[str, str], float] = defaultdict(float)
  notes: Counter[str] = Counter()
  hidden, first_pieces = 0.0, dict[str, str]()
  for i, times in _executed(computations, entry, unknown_trips, notes):
    inside = _inside(computations, i)
    sent = [each for each in inside if each.op.removesuffix("-start") in _COLLECTIVES]
    if sent:
      # An asynchronous operation is in a separate computation, or ends in -start.
      overlapped = i not in sent or any(each.op.endswith("-start") for each in sent)
      # The first piece of a channel counts for all pieces, as often as it runs.
      counted = [each for each in sent if not overlapped or first_pieces.setdefault(_channel(each), i.name) == i.name]
      spent = times * sum(sum(c.sent for c in collectives(_line(each))) for each in counted) / chip.link
      if overlapped:
        hidden += spent
      else:
        groups["collectives", module_of(i.op_name)] += spent
    seconds = _seconds(computations, i, chip)
    if seconds is not None:
      groups[
        instruction_kind(i, inside), module_of(i.op_name or next((e.op_name for e in inside if e.op_name), ""))
      ] += times * seconds
    elif not sent and i.op in ("fusion", "convolution", "copy"):
      notes["unestimated"] += 1
  kinds: dict[str, float] = defaultdict(float)
  for (name, _), spent in groups.items():
    kinds[name] += spent
  return Estimate(dict(kinds), dict(groups), hidden, notes["loops"], notes["unestimated"])


_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def _executed(
  computations: Mapping[str, list[Instruction]], name: str, unknown: int, notes: Counter[str], times: int = 1
) -> Iterator[tuple[Instruction, int]]:
  """Every instruction that is scheduled on its own, and how often it runs."""
  for i in computations.get(name, []):
    if i.op == "while":
      trips = trip_count(computations, i)
      notes["loops"] += trips is None
      yield from _executed(
        computations, i.called("body"), unknown, notes, times * (unknown if trips is None else trips)
      )
    elif i.op == "call":
      yield from _executed(computations, i.called("to_apply"), unknown, notes, times)
    elif i.op == "conditional":  # which branch runs is unknown: all are counted, which overestimates
      for branch in re.findall(r"%([\w.-]+)", "".join(re.findall(r"branch_computations=\{([^}]*)\}", i.rest))):
        yield from _executed(computations, branch, unknown, notes, times)
    else:
      yield i, times


def _inside(computations: Mapping[str, list[Instruction]], i: Instruction) -> list[Instruction]:
  """The instruction, and all instructions of the computations that it calls."""
  found = [i]
  for each in computations.get(i.called("calls"), []):
    found += _inside(computations, each)
  return found


def _channel(i: Instruction) -> str:
  found = re.search(r"channel_id=(\d+)", i.rest)
  return found[1] if found else i.name


def _line(i: Instruction) -> str:
  return f"  %{i.name} = {i.result} {i.op}({i.rest}"


def _seconds(computations: Mapping[str, list[Instruction]], i: Instruction, chip: Chip) -> float | None:
  if found := re.search(r'estimated_cycles":"(\d+)"', i.rest):
    return int(found[1]) / chip.clock
  if i.op == "custom-call" and "tpu_custom_call" in i.rest:
    return _kernel_seconds(computations, i, chip)
  return None


def _kernel_seconds(computations: Mapping[str, list[Instruction]], i: Instruction, chip: Chip) -> float:
  """The roofline estimate of a Pallas kernel."""
  layouts = re.search(r"operand_layout_constraints=\{(.*?\})\}", i.rest)
  operands, results = _shapes(layouts[1] if layouts else ""), _shapes(i.result)
  moved = sum(_size(*shape) for shape in (*operands, *results)) / chip.bandwidth
  products = next((count for name, count in _PRODUCTS.items() if i.name.startswith(name)), 0)
  # Queries, keys and so on, [... heads, length, width] or [... heads, width, length]; the kernel's tables of integers
  # precede them. The first result with a head axis has the width last.
  by_head, results = (
    [axes for name, axes in shapes if len(axes) > 2 and "f" in name] for shapes in (operands, results)
  )
  if not products or len(by_head) < 2 or not results:
    return moved
  width = results[0][-1]
  queries, keys = (math.prod(axes[-2:]) // width for axes in by_head[:2])
  logits = math.prod(by_head[0][:-2]) * queries * keys
  padded = -(-width // _LANES) * _LANES
  return max(moved, 2 * products * logits * padded / chip.flops, _VECTOR_OPS * logits / chip.vector)


def _shapes(text: str) -> list[tuple[str, list[int]]]:
  found = re.findall(r"\b([a-z]+\d+|pred)\[([\d,]*)\]", text)
  return [(name, [int(side) for side in axes.split(",") if side]) for name, axes in found]


def _size(name: str, axes: list[int]) -> int:
  total = _BYTES.get(name, 4)
  for side in axes:
    total *= side
  return total


def instruction_kind(i: Instruction, inside: list[Instruction]) -> str:
  """The kind of an instruction, one of `KINDS`, from the operations in it and their names."""
  names = [each.op_name for each in inside]
  if "splash" in i.name or any(re.search(r"splash|/attn\d*/(?!to_)", name) for name in names):
    return "attention"
  for each in inside:
    if each.op == "convolution":  # also every matrix product
      return "convolution" if "conv_general" in each.op_name else "matrix product"
  if all(each.op in _MOVES or each.op == "fusion" for each in inside):
    return "copies"
  if any(re.search(r"/\w*norm\w*/", name) for name in names):
    return "normalization"
  return "elementwise"


def module_of(op_name: str) -> str:
  """The module in an operation's name, with layer numbers replaced by *.

  Omits JAX's own parts, the primitive, the methods of modules, and the path to the outermost module where
  differentiation repeats it.
  """
  parts = [part for part in op_name.split("/")[:-1] if not _NO_MODULE.match(part)]
  parts = [re.sub(r"\.\w+$", "", part) for part in parts]
  parts = parts[len(parts) - 1 - parts[::-1].index(parts[0]) :] if parts else []
  return re.sub(r"_\d+", "_*", "/".join(part for part, _ in itertools.groupby(parts))) or "(no module)"
