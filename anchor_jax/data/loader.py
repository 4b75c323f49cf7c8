"""Endless, shuffled, restorable batches from prepared records, with grain.

Which records a batch holds is a function of (seed, step) alone: neither the number of processes that share a batch
nor that of reader processes changes it, nor the order of its rows. The state is one integer.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from anchor_jax.data.sources import Source
from anchor_jax.errors import UserError
from anchor_jax.shapes import Int, NdArray, Shaped

REFERENCE = "reference_"


@dataclasses.dataclass(frozen=True)
class _Pair:
  """Draws, for a target record, a random other record of the same person as its reference."""

  by_person: tuple[NdArray, ...]  # possible references of each person
  position: NdArray  # of a record among its person's references; beyond the last where it is none
  people: NdArray

  def __call__(self, index: int, rng: np.random.Generator) -> tuple[int, int]:
    mine, position = self.by_person[self.people[index]], int(self.position[index])
    others = len(mine) - (position < len(mine))
    if not others:
      return index, index
    # a uniform draw among the others: skip over the record's own position
    other = int(rng.integers(others))
    return index, int(mine[other + (other >= position)])


@dataclasses.dataclass(frozen=True)
class _Read:
  """Turns a pair of record numbers into an example."""

  source: Source
  target_fields: tuple[str, ...]
  reference_fields: tuple[str, ...]
  cached: Mapping[str, NdArray]
  clip: int
  last: NdArray  # for each record, the number of the last that a clip may go on to

  def __call__(self, pair: tuple[int, int]) -> dict[str, Any]:
    index, reference = pair
    example: dict[str, Any] = {"index_in_source": np.int32(index)}
    if self.clip == 1:
      example.update(self._fields(index, self.target_fields))
    else:
      numbers = np.minimum(index + np.arange(self.clip), self.last[index])  # a video's end stands still
      frames = [self._fields(int(number), self.target_fields) for number in numbers]
      example.update({name: np.stack([frame[name] for frame in frames]) for name in self.target_fields})
    others = self._fields(reference, self.reference_fields)
    example.update({REFERENCE + name: value for name, value in others.items()})
    return example

  def _fields(self, index: int, fields: Sequence[str]) -> dict[str, Any]:
    stored = [name for name in fields if name not in self.cached]
    values = self.source.read(index, stored) if stored else {}
    return values | {name: self.cached[name][index] for name in fields if name in self.cached}


class _Contiguous(grain.MapDataset):
  """Reorders rows so that process p of P holds rows [p B / P, (p + 1) B / P) of each global batch of B.

  grain's elastic iterator deals the rows of a batch out like cards; this undoes the dealing, so that the global array
  put together from the processes is the same array whatever P is.
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
    turn, process = divmod(row, self._processes)
    return self._parent[step * self._batch + process * (self._batch // self._processes) + turn]

  def __str__(self) -> str:
    return f"Contiguous(batch={self._batch}, processes={self._processes})"


def _pairing(people: Int[NdArray, " N"], references: Int[NdArray, " M"]) -> _Pair:
  by_person = tuple(references[people[references] == person] for person in range(int(people.max()) + 1))
  position = np.full(len(people), len(people), np.int64)
  for mine in by_person:
    position[mine] = np.arange(len(mine))
  return _Pair(by_person, position, people)


def _last_of_run(videos: Int[NdArray, " N"], usable: Int[NdArray, " M"]) -> Int[NdArray, " N"]:
  """For each record the number of the last one of its run in the same video, over usable records alone."""
  known = np.isin(np.arange(len(videos)), usable)
  ends = np.append(np.flatnonzero(np.diff(videos).astype(bool) | ~known[1:]), len(videos) - 1)
  return ends[np.searchsorted(ends, np.arange(len(videos)))]


def make_loader(
  source: Source,
  *,
  batch_size: int,
  seed: int,
  fields: Sequence[str] = ("frame", "pose", "reference_frame"),
  cached: Mapping[str, Shaped[NdArray, "N ..."]] | None = None,
  records: Int[NdArray, " M"] | None = None,
  references: Int[NdArray, " K"] | None = None,
  clip: int = 1,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 2,
) -> grain.DatasetIterator:
  """Endless batches of target frames, each with a random other frame of the same person as reference.

  An example is one record's `fields`; a field `reference_NAME` is NAME of the reference record. Every record comes once
  an epoch, in a new order each time; batches cross the border of epochs. `next(it)` gives a dictionary of arrays
  [batch_size / process_count, ...] with besides the fields `index_in_source` (int32, the record's number).
  `it.get_state()` is a small dictionary for a checkpoint, `it.set_state(...)` goes on from there, also with other
  process and worker counts.

  Args:
    source: the records, such as `open_prepared(folder)`, `load(...)` for speed, or several in a `JoinedSource`.
    batch_size: of the global batch, a multiple of `process_count`.
    seed: names the order and the choice of references.
    fields: what an example holds.
    cached: arrays with one entry for each record of the source (such as latents) that stand in for, or add to, its
      fields.
    records: numbers of the records to use, default all; the head needs those with landmarks.
    references: numbers of those that references are drawn from, default `records`.
    clip: above 1, the fields that aren't a reference's have one more axis behind the first, of so many frames in a row.
    process_index, process_count: this process's part of each batch.
    workers: reader processes; 0 reads in threads of this one, which is best for records in memory.
    threads: reader threads.

  Raises:
    UserError: no record, or a batch that the processes cannot share evenly.
  """
  cached = dict(cached or {})
  for name, array in cached.items():
    if len(array) != len(source):
      raise ValueError(f"cached {name} has {len(array)} entries, the source {len(source)} records")
  usable = np.arange(len(source)) if records is None else np.asarray(records)
  if not len(usable):
    raise UserError("there is no record to train on: prepare a video in which the person's face can be seen")
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"a batch of {batch_size} cannot be shared by {process_count} processes: make it a multiple")
  target = tuple(name for name in fields if not name.startswith(REFERENCE))
  reference = tuple(name.removeprefix(REFERENCE) for name in fields if name.startswith(REFERENCE))
  dataset = (
    grain.MapDataset.source(usable.tolist())
    .seed(seed)
    .shuffle()
    .repeat()
    .random_map(_pairing(source.people, usable if references is None else np.asarray(references)))
    .map(_Read(source, target, reference, cached, clip, _last_of_run(source.videos, usable)))
  )
  dataset = _Contiguous(dataset, batch_size, process_count)
  reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * batch_size // process_count, threads))
  processes = grain.MultiprocessingOptions(num_workers=workers) if workers else None
  if workers and not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads its flags when it starts processes; not every program parses flags
  shard = grain.sharding.ShardOptions(shard_index=process_index, shard_count=process_count)
  return iter(
    grain.experimental.ElasticIterator(
      dataset, batch_size, shard, read_options=reading, multiprocessing_options=processes
    )
  )
