"""Weights and inputs that are the same in two processes, each array seeded by its name; timing of a function."""

import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The random parameter of this name in torch's layout, float32, no zeros: kernels by fan-in, scales about 1."""
  noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
  if len(shape) > 1:
    return noise * np.float32(np.prod(shape[1:]) ** -0.5)
  return np.float32(0.1) * noise + np.float32(name.endswith("weight"))


def inputs(task: dict[str, Any], model: str, tokens: int, width: int, first: int) -> dict[str, np.ndarray]:
  """Arrays of a training batch, and of a window ("window_..."), channel-last.

  Args:
    task: sizes, one of `accelerator.SIZES`.
    model: "equality" or "full".
    tokens, width: of the context.
    first: channels of the pose features.
  """
  batch, frames, side = task["batch"], task["frames"], task["models"][model]["side"]
  pose = side * 2 ** (len(task["stem"]) - 1)
  shapes = {
    "latents": (batch, side, side, 4),
    "target": (batch, side, side, 4),
    "context": (batch, tokens, width),
    "pose": (batch, pose, pose, 3),
    "window_latents": (1, frames, side, side, 4),
    "window_context": (1, tokens, width),
    "window_pose": (1, frames, side, side, first),
  }
  arrays = {
    name: np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    for name, shape in shapes.items()
  }
  return {**arrays, "timesteps": np.linspace(20, 980, batch).astype(np.int32), "window_timesteps": np.array([500])}


def median_seconds(run: Callable[[], Any], limit: float) -> float:
  """The median time of a function that waits for its result: a warm-up, then 3 to 50 runs in about `limit` seconds."""
  run()
  spent, times = time.perf_counter(), []
  while len(times) < 3 or (len(times) < 50 and time.perf_counter() - spent < limit):
    started = time.perf_counter()
    run()
    times.append(time.perf_counter() - started)
  return statistics.median(times)


def attention_tflops(shape: list[int], both: float) -> float:
  """TFLOP/s of attention [B, N, heads, D] forward (two products) and backward (five) in `both` seconds."""
  batch, tokens, heads, width = shape
  return 14 * batch * heads * tokens**2 * width / both / 1e12


def reason(error: BaseException) -> str:
  """The first line of an error, for the report."""
  return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
