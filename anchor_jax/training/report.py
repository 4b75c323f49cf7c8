"""What a run writes about its progress: progress bar, metrics.jsonl, TensorBoard, and a profiler trace on request."""

import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from anchor_jax.compiler.chips import Chip
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.outputs import new_file

_SHOWN_ON_BAR = ("loss", "validation_loss", "psnr", "images_per_second", "utilisation")  # JSON keys


class Report:
  """Writes a part's metrics to its folder and shows a progress bar. A context manager."""

  def __init__(self, folder: Path, steps: int, start: int, batch_size: int, name: str, active: bool = True):
    """Opens FOLDER/metrics.jsonl and FOLDER/tensorboard.

    Args:
      folder: WORKDIR/PART.
      steps, start: number of steps of the run, and number of steps already done.
      batch_size: images per step.
      name: label of the progress bar.
      active: whether to write anything; True in one process of a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self._folder, self._batch_size, self._active = folder, batch_size, active
    self._file = (folder / "metrics.jsonl").open("a") if active else open(os.devnull, "w")  # noqa: SIM115
    self._board = SummaryWriter(str(folder / "tensorboard"), write_to_disk=active)
    self._bar = tqdm(
      total=steps, initial=start, desc=f"train {name}", unit="step", dynamic_ncols=True, mininterval=0.5,
      disable=not active,
    )  # fmt: skip
    self._clock, self._last, self._peak_rate = time.monotonic(), start, 0.0
    self._shown: dict[str, str] = {}

  def __enter__(self) -> "Report":
    return self

  def __exit__(self, *_) -> None:
    self._bar.close()
    self._board.close()
    self._file.close()

  def compiled(self, seconds: float, flops: float = 0.0, chip: Chip | None = None) -> None:
    """Records the compile time, which the image rate leaves out.

    Args:
      seconds: compile time.
      flops: operations of a step on one device, for the utilization; 0 if unknown.
      chip: the device's kind, if known.
    """
    self._bar.write(f"compiled the step in {seconds:.1f} s")
    self._file.write(json.dumps({"compile_seconds": round(seconds, 2), "step_flops": flops}) + "\n")
    self._peak_rate = chip.flops / flops if chip and flops else 0.0  # steps per second at full utilization
    self._clock, self._last = time.monotonic(), self._bar.n

  def advance(self) -> None:
    """Moves the progress bar by one step."""
    self._bar.update()

  def paused(self, step: int) -> None:
    """Restarts the clock of the image rate: the time since `step` ended does not count."""
    self._clock, self._last = time.monotonic(), step

  def log(self, step: int, metrics: dict[str, float]) -> None:
    """Writes the metrics of a step and the image rate since the last call of `log` or `paused`."""
    now = time.monotonic()
    if step > self._last:
      rate = (step - self._last) / (now - self._clock)
      metrics = {**metrics, "images_per_second": rate * self._batch_size}
      if self._peak_rate:
        metrics["utilisation"] = rate / self._peak_rate
      self._clock, self._last = now, step
    self._file.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in metrics.items()}}) + "\n")
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)
    self._shown |= {name: f"{metrics[name]:.4g}" for name in _SHOWN_ON_BAR if name in metrics}
    self._bar.set_postfix(self._shown)

  def picture(self, step: int, image: UInt8[NdArray, "H W 3"], name: str = "preview") -> None:
    """Writes a picture to TensorBoard and to FOLDER/NAME.png."""
    if not self._active:
      return
    self._board.add_image(name, np.transpose(image, (2, 0, 1)), step)
    with new_file(self._folder / f"{name}.png") as path:
      cv2.imwrite(str(path), image[..., ::-1])


class Trace:
  """Profiler trace of three steps, the third to the fifth in a run that is long enough. A context manager.

  The trace is written after the last of the three, or when the block exits before that.
  """

  def __init__(self, folder: Path | None, start: int, steps: int):
    """Prepares a trace into `folder`; None traces nothing. The run does steps start + 1 to `steps`."""
    self._folder, self._running = folder, False
    self._first = max(start + 1, min(start + 3, steps - 2))  # the first steps are not typical
    self._last = min(self._first + 2, steps)

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *_) -> None:
    self._stop()

  def before(self, step: int) -> None:
    """Call before each step."""
    if self._folder is not None and step == self._first:
      jax.profiler.start_trace(str(self._folder))
      self._running = True

  def after(self, step: int, results: Any) -> None:
    """Call after each step, with arrays that it computed."""
    if self._running and step == self._last:
      jax.block_until_ready(results)
      self._stop()

  def _stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
