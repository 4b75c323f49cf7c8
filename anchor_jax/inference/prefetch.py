"""Iterators that compute the next item while the caller uses the current one."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_END = object()


def dispatch_ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields each item after requesting the next one; the first is yielded immediately.

  JAX dispatches asynchronously, so the device computes the next item while the caller uses this one.
  """
  yield from itertools.islice(items, 1)
  held: list[Any] = []
  for item in items:
    yield from held
    held = [item]
  yield from held


def in_thread(items: Iterator[Any]) -> Iterator[Any]:
  """Yields each item as soon as it is ready, while another thread computes the next.

  XLA's convolutions use one CPU core each, so two computing threads are nearly twice as fast on two cores. Slow items,
  such as poses arriving at the camera's rate, delay nothing else. Exceptions of `items` are raised here.
  """
  with ThreadPoolExecutor(1) as thread:
    upcoming = thread.submit(next, items, _END)
    while (item := upcoming.result()) is not _END:
      upcoming = thread.submit(next, items, _END)
      yield item
