"""What one sees of a run: a progress bar, metrics.jsonl, TensorBoard scalars and pictures."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from anchor_jax.files import new_file
from anchor_jax.shapes import NdArray, UInt8
from anchor_jax.training.chips import Chip

_ON_THE_BAR = ("loss", "validation_loss", "psnr", "images_per_second", "utilisation")


class Report:
  """Writes one part's metrics into its folder and shows a bar. A context manager."""

  def __init__(self, folder: Path, steps: int, start: int, batch_size: int, name: str, active: bool = True):
    """Opens FOLDER/metrics.jsonl and FOLDER/tensorboard; `start` steps are already done.

    Where not `active` (a process that isn't the first) all is thrown away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self._folder, self._batch_size, self._active = folder, batch_size, active
    self._file = (folder / "metrics.jsonl").open("a") if active else open(os.devnull, "w")  # noqa: SIM115
    self._board = SummaryWriter(str(folder / "tensorboard"), write_to_disk=active)
    self._bar = tqdm(
      total=steps, initial=start, desc=f"train {name}", unit="step", dynamic_ncols=True, mininterval=0.5,
      disable=not active,
    )  # fmt: skip
    self._clock, self._last, self._best = time.monotonic(), start, 0.0
    self._shown: dict[str, str] = {}

  def __enter__(self) -> "Report":
    return self

  def __exit__(self, *_) -> None:
    self._bar.close()
    self._board.close()
    self._file.close()

  def compiled(self, seconds: float, flops: float = 0.0, chip: Chip | None = None) -> None:
    """Tells the time of compiling apart, starts the clock anew, and takes what utilisation is reckoned from.

    `flops` are a step's on one device, `chip` is what that device can do at most.
    """
    self._bar.write(f"compiled the step in {seconds:.1f} s")
    self._file.write(json.dumps({"compile_seconds": round(seconds, 2), "step_flops": flops}) + "\n")
    self._best = chip.flops / flops if chip and flops else 0.0  # steps a second at full use
    self._clock, self._last = time.monotonic(), self._bar.n

  def advance(self) -> None:
    """One step done."""
    self._bar.update()

  def paused(self, step: int) -> None:
    """What happened since `step` ended was no training: the clock starts anew."""
    self._clock, self._last = time.monotonic(), step

  def log(self, step: int, metrics: dict[str, float]) -> None:
    """Writes metrics of a step; adds images per second since the last call of this or `paused`."""
    now = time.monotonic()
    if step > self._last:
      rate = (step - self._last) / (now - self._clock)
      metrics = {**metrics, "images_per_second": rate * self._batch_size}
      if self._best:
        metrics["utilisation"] = rate / self._best
      self._clock, self._last = now, step
    self._file.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in metrics.items()}}) + "\n")
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)
    self._shown |= {name: f"{metrics[name]:.4g}" for name in _ON_THE_BAR if name in metrics}
    self._bar.set_postfix(self._shown)

  def picture(self, step: int, image: UInt8[NdArray, "H W 3"], name: str = "preview") -> None:
    """Keeps a picture on the board and as FOLDER/NAME.png."""
    if not self._active:
      return
    self._board.add_image(name, np.transpose(image, (2, 0, 1)), step)
    with new_file(self._folder / f"{name}.png") as path:
      cv2.imwrite(str(path), image[..., ::-1])
