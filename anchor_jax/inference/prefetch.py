"""Iterators that are a little ahead of whoever takes their items."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_END = object()


def one_late(items: Iterator[Any]) -> Iterator[Any]:
  """Yields each item once the next has been asked for, but the first at once.

  So a device computes the next item, which is only dispatched then, while the caller uses this one.
  """
  yield from itertools.islice(items, 1)
  held: list[Any] = []
  for item in items:
    yield from held
    held = [item]
  yield from held


def in_thread(items: Iterator[Any]) -> Iterator[Any]:
  """Yields each item as soon as it is there, while another thread makes the next.

  XLA's convolutions use one CPU core each, so that two threads that compute are nearly twice as fast on two cores. And
  items that come late (poses at the rate at which they are filmed) hold nothing back. What `items` raises is raised
  here.
  """
  with ThreadPoolExecutor(1) as thread:
    coming = thread.submit(next, items, _END)
    while (item := coming.result()) is not _END:
      coming = thread.submit(next, items, _END)
      yield item
