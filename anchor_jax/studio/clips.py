"""Renders clips of one person or of many people in several processes."""

import collections
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import cv2

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.identity import Identity, make_identity
from anchor_jax.studio.motion import Performance, make_motion
from anchor_jax.studio.renderer import StudioFrame, render

CHUNK = 8  # frames per task

_Size = int | tuple[int, int] | FrameSize
_Task = tuple[Identity, Performance, list[float], _Size]


def render_clip(
  identity: Identity, motion: Performance, times: Sequence[float] | NdArray, size: _Size, workers: int | None = None
) -> Iterator[StudioFrame]:
  """Yields the frame at each of `times` (seconds), in order.

  Args:
    identity, motion: from `make_identity` and `make_motion`.
    times: seconds.
    size: a square's side in pixels, or (width, height).
    workers: number of processes; None for one per core, 1 to render in this process. Processes are spawned, so a script
      needs `if __name__ == "__main__"` around the call.
  """
  instants = [float(time) for time in times]
  tasks = [(identity, motion, instants[i : i + CHUNK], size) for i in range(0, len(instants), CHUNK)]
  for frames in _render_tasks(tasks, workers):
    yield from frames


def render_people(
  seeds: Sequence[int], times: Sequence[float], size: _Size, workers: int | None = None
) -> Iterator[list[StudioFrame]]:
  """Yields, for each seed in order, the frames at `times` of that seed's identity and motion.

  Args:
    seeds: each of an identity and a motion.
    times: seconds, the same for every person.
    size: a square's side in pixels, or (width, height).
    workers: as for `render_clip`.
  """
  instants = [float(time) for time in times]
  return _render_tasks([(make_identity(seed), make_motion(seed), instants, size) for seed in seeds], workers)


def _render_tasks(tasks: Sequence[_Task], workers: int | None) -> Iterator[list[StudioFrame]]:
  workers = min(workers or os.cpu_count() or 1, len(tasks))
  if workers <= 1:
    yield from map(_render_task, tasks)
    return
  # OpenCV's own threads would compete with the one process per core.
  spawn = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(workers, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
    waiting = collections.deque()
    for task in tasks:
      waiting.append(pool.submit(_render_task, task))
      if len(waiting) > 2 * workers:  # bounds the frames in memory
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()


def _render_task(task: _Task) -> list[StudioFrame]:
  identity, motion, times, size = task
  return [render(identity, motion, time, size) for time in times]
