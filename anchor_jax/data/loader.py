"""Endless, shuffled, restorable batches of records, with grain.

The rows of a batch depend on seed and step only, not on the number of processes that share the batch or on the number
of reader processes. The state is one integer.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class _Pair:
  """Pairs a target record with a random other record of the same person as its reference."""

  by_person: tuple[NdArray, ...]  # candidate references of each person
  position: NdArray  # index of each record among its person's candidates; past the end if it is not one of them
  people: NdArray

  def __call__(self, index: int, rng: np.random.Generator) -> tuple[int, int]:
    candidates, position = self.by_person[self.people[index]], int(self.position[index])
    count = len(candidates) - (position < len(candidates))
    if not count:
      return index, index
    # Uniform over the candidates without the record itself.
    draw = int(rng.integers(count))
    return index, int(candidates[draw + (draw >= position)])


@dataclasses.dataclass(frozen=True)
class _Read:
  """Reads the example for a pair of record numbers."""

  source: Source
  target_fields: tuple[str, ...]
  reference_fields: tuple[str, ...]
  clip: int
  last: NdArray  # for each record, the last record that a clip starting there may contain

  def __call__(self, pair: tuple[int, int]) -> dict[str, Any]:
    index, reference = pair
    if self.clip == 1:
      target = self._fields(index, self.target_fields)
    else:
      numbers = np.minimum(index + np.arange(self.clip), self.last[index])  # repeats the last frame
      frames = [self._fields(int(number), self.target_fields) for number in numbers]
      target = {name: np.stack([frame[name] for frame in frames]) for name in self.target_fields}
    return {"record": np.int32(index), "target": target, "reference": self._fields(reference, self.reference_fields)}

  def _fields(self, index: int, fields: tuple[str, ...]) -> dict[str, Any]:
    return self.source.read(index, fields) if fields else {}


class _Contiguous(grain.MapDataset):
  """Reorders rows so that process p of P reads rows [p B / P, (p + 1) B / P) of each global batch of B.

  grain's elastic iterator deals rows p, p + P, p + 2 P, ... to process p. This permutation inverts that, so that the
  concatenation over processes does not depend on P.
  """

  def __init__(self, parent: grain.MapDataset, batch_size: int, process_count: int):
    super().__init__(parent)
    self._batch, self._processes = batch_size, process_count

  def __len__(self) -> int:
    return len(self._parent)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, self._batch)
    own_row, process = divmod(row, self._processes)
    return self._parent[step * self._batch + process * (self._batch // self._processes) + own_row]

  def __str__(self) -> str:
    return f"Contiguous(batch={self._batch}, processes={self._processes})"


def _pairing(people: Int[NdArray, " N"], references: Int[NdArray, " M"]) -> _Pair:
  by_person = tuple(references[people[references] == person] for person in range(int(people.max()) + 1))
  position = np.full(len(people), len(people), np.int64)
  for candidates in by_person:
    position[candidates] = np.arange(len(candidates))
  return _Pair(by_person, position, people)


def _last_of_run(videos: Int[NdArray, " N"], usable: Int[NdArray, " M"]) -> Int[NdArray, " N"]:
  """For each record, the last record before its video ends or a record is unusable."""
  known = np.isin(np.arange(len(videos)), usable)
  ends = np.append(np.flatnonzero(np.diff(videos).astype(bool) | ~known[1:]), len(videos) - 1)
  return ends[np.searchsorted(ends, np.arange(len(videos)))]


def make_loader(
  source: Source,
  *,
  batch_size: int,
  seed: int,
  target: Sequence[str] = ("frame", "pose"),
  reference: Sequence[str] = ("frame",),
  records: Int[NdArray, " M"] | None = None,
  references: Int[NdArray, " K"] | None = None,
  clip: int = 1,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 2,
) -> grain.DatasetIterator:
  """Endless batches of target records, each with a random other record of the same person as its reference.

  Every record is a target once per epoch, in a new order each time; batches may span two epochs. `next(it)` returns
  {"target": {field: array}, "reference": {field: array}, "record": int32 numbers of the targets}, with arrays of shape
  [batch_size / process_count, ...]. `it.get_state()` is a small dictionary for a checkpoint, from which
  `it.set_state(...)` resumes, also with another number of processes or workers.

  Args:
    source: the records: `open_prepared(folder)`, `load_records(...)` for speed, or several in a `JoinedSource`.
    batch_size: rows of the global batch, a multiple of `process_count`.
    seed: of the order and of the choice of references.
    target, reference: fields to read of target and reference; without reference fields, no reference is read.
    records: numbers of the records to use, default all; the head needs those with landmarks.
    references: numbers of the records to draw references from, default `records`.
    clip: frames per target; above 1, target fields are [batch, clip, ...] of consecutive frames of a video.
    process_index, process_count: which shard of each batch to read.
    workers: reader processes; 0 reads in threads of this process, which is best for records in memory.
    threads: reader threads.

  Raises:
    UserError: there is no record, or the batch is not divisible by the number of processes.
  """
  usable = np.arange(len(source)) if records is None else np.asarray(records)
  if not len(usable):
    raise UserError("there is no record to train on: prepare a video in which the person's face can be seen")
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"a batch of {batch_size} cannot be sharded over {process_count} processes: make it a multiple")
  dataset = (
    grain.MapDataset.source(usable.tolist())
    .seed(seed)
    .shuffle()
    .repeat()
    .random_map(_pairing(source.people, usable if references is None else np.asarray(references)))
    .map(_Read(source, tuple(target), tuple(reference), clip, _last_of_run(source.videos, usable)))
  )
  dataset = _Contiguous(dataset, batch_size, process_count)
  reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * batch_size // process_count, threads))
  processes = grain.MultiprocessingOptions(num_workers=workers) if workers else None
  if workers and not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags when it starts processes, parsed or not
  shard = grain.sharding.ShardOptions(shard_index=process_index, shard_count=process_count)
  return iter(
    grain.experimental.ElasticIterator(
      dataset, batch_size, shard, read_options=reading, multiprocessing_options=processes
    )
  )
