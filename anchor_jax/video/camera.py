"""Live pictures from a camera, or from a film that stands in for one; only the newest picture is used."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from anchor_jax.core.cli import quiet_stderr
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.video.bars import probe_film
from anchor_jax.video.read import read_frames
from anchor_jax.video.timing import pick, tick_frames

_WORD = "camera"
_SIZE = 640, 480  # pixels requested from a camera; the landmark model downscales anything larger
_DEFAULT_FPS = 30.0  # for a camera that reports no credible rate
_CREDIBLE_FPS = 1, 240

Image = UInt8[NdArray, "H W 3"]


class Picture(NamedTuple):
  """A picture of a camera.

  Attributes:
    number: index among all pictures from the camera, from 0.
    time: arrival time in seconds of the clock.
    image: RGB.
  """

  number: int
  time: float
  image: Image


class Camera(NamedTuple):
  """A source of live pictures.

  Attributes:
    fps: pictures per second.
    read: blocks until the next picture and returns it; None at the end.
    close: releases the device.
  """

  fps: float
  read: Callable[[], Image | None]
  close: Callable[[], object]


def camera_named(text: str) -> int | Path | None:
  """Returns the camera that a --motion value names: its number, or the film that stands in for it; None for a file.

  "camera" is the first camera, "camera:1" the second, "camera:FILM" a film; write "./camera" for a file of that name.

  Raises:
    UserError: nothing follows the colon.
  """
  word, colon, rest = text.partition(":")
  if word != _WORD or (colon and not rest):
    if word == _WORD:
      raise UserError(
        f"--motion={text}: give the number of a camera (camera:1), or a film that plays as one (camera:FILM)"
      )
    return None
  return int(rest or 0) if rest.isdecimal() or not rest else Path(rest)


def open_camera(
  name: int | Path,
  fps: float | int | None = None,
  device: Callable[[int], Any] = cv2.VideoCapture,
  clock: Callable[[], float] = time.monotonic,
  sleep: Callable[[float], None] = time.sleep,
) -> Camera:
  """Opens a camera, or a film that plays in real time in its place.

  Args:
    name: from `camera_named`.
    fps: rate to request from the camera, or to play the film at; default its own.
    device: opens a camera by number; OpenCV's VideoCapture unless a test replaces it.
    clock, sleep: likewise replaced by tests.

  Raises:
    UserError: no such camera, no permission to use it, or the film can't be read.
  """
  if isinstance(name, Path):
    info = probe_film(name)
    rate = float(fps or info.fps)
    ticks, frames = tick_frames(info), read_frames(name, info=info)
    frames = _paced(frames if ticks is None else pick(frames, ticks), rate, clock, sleep)
    return Camera(rate, lambda: next(frames, None), lambda: None)
  with quiet_stderr():  # OpenCV prints its own diagnostics; the UserError below replaces them
    capture = device(name)
    for key, value in ((cv2.CAP_PROP_FRAME_WIDTH, _SIZE[0]), (cv2.CAP_PROP_FRAME_HEIGHT, _SIZE[1])):
      capture.set(key, value)
    if fps is not None:
      capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # if the driver supports it: no stale pictures in a queue
    works = capture.isOpened() and capture.read()[0]
  if not works:
    capture.release()
    raise UserError(
      f"no picture comes from camera {name}: check that it is plugged in, that no other program uses it and that you"
      f" may use it (Linux: your user is in the group video), or name another (--motion=camera:{name + 1})"
    )
  reported = capture.get(cv2.CAP_PROP_FPS)

  def read() -> Image | None:
    success, image = capture.read()
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if success else None

  credible = _CREDIBLE_FPS[0] <= reported <= _CREDIBLE_FPS[1]
  return Camera(float(reported) if credible else _DEFAULT_FPS, read, capture.release)


def _paced(
  frames: Iterator[Image], fps: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Image]:
  """Yields each frame when it is due; the clock starts with the first."""
  start = None
  for number, frame in enumerate(frames):
    start = clock() if start is None else start
    while (wait := start + number / fps - clock()) > 0:
      sleep(wait)
    yield frame


class NewestPicture:
  """Reads pictures in a thread and holds only the newest; a picture that is replaced before `take` is dropped.

  A context manager. `take` re-raises errors of the reading thread.
  """

  def __init__(self, read: Callable[[], Image | None], clock: Callable[[], float] = time.monotonic):
    """Takes the function to read with (see `Camera`) and the clock for time stamps, in seconds."""
    self._read, self._clock = read, clock
    self._changed = threading.Condition()
    self._picture: Picture | None = None
    self._error: BaseException | None = None
    self._ended = False
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> "NewestPicture":
    self._thread.start()
    return self

  def __exit__(self, *error: Any) -> None:
    self.stop()
    self._thread.join()

  def take(self) -> Picture | None:
    """Returns the newest picture not yet taken, waiting for one if needed; None at the end, or after `stop`."""
    with self._changed:
      self._changed.wait_for(lambda: self._picture is not None or self._ended)
      picture, self._picture = self._picture, None
      if picture is None and self._error is not None:
        raise self._error
      return picture

  def stop(self) -> None:
    """Ends the stream; a picture that is already waiting is dropped."""
    with self._changed:
      self._ended, self._picture = True, None
      self._changed.notify_all()

  def _run(self) -> None:
    number = 0
    try:
      while not self._ended and (image := self._read()) is not None:
        with self._changed:
          if not self._ended:
            self._picture = Picture(number, self._clock(), image)
            self._changed.notify_all()
        number += 1
    except Exception as error:  # noqa: BLE001  (re-raised by take)
      self._error = error
    with self._changed:
      self._ended = True
      self._changed.notify_all()
