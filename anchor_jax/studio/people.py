"""Many studio people at once: one pool of processes for all of them, a person a task."""

import collections
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import cv2

from anchor_jax.studio.frames import StudioFrame, make_identity, make_motion, render


def film_people(
  seeds: Sequence[int], times: Sequence[float], size: int, workers: int | None = None
) -> Iterator[list[StudioFrame]]:
  """Each person of `seeds`, in her own motion of the same seed, at the given instants (seconds); in order.

  Args:
    seeds: of identity and motion.
    times: instants filmed of each.
    size: side of the pictures in pixels.
    workers: processes, spawned; all cores when None, none besides this one when 1.
  """
  workers = min(workers or os.cpu_count() or 1, len(seeds))
  if workers <= 1:
    yield from (_film(seed, times, size) for seed in seeds)
    return
  with _pool(workers) as pool:
    waiting = collections.deque()
    for seed in seeds:
      waiting.append(pool.submit(_film, seed, times, size))
      if len(waiting) > 2 * workers:  # no further ahead than that: finished people wait in memory
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()


def _pool(workers: int) -> ProcessPoolExecutor:
  # Every core has a process of ours: OpenCV's own threads would only get in each other's way.
  spawn = multiprocessing.get_context("spawn")
  return ProcessPoolExecutor(workers, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,))


def _film(seed: int, times: Sequence[float], size: int) -> list[StudioFrame]:
  identity, motion = make_identity(seed), make_motion(seed)
  return [render(identity, motion, time, size) for time in times]
