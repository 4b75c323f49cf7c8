"""A camera, or a film in place of one: of its pictures always the newest, the others are dropped."""

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
_SIZE = 640, 480  # pixels that a camera is asked for: the landmark model shrinks larger pictures
_USUAL = 30.0  # pictures a second of a camera that does not say
_CREDIBLE = 1, 240

Image = UInt8[NdArray, "H W 3"]


class Picture(NamedTuple):
  """A picture of a camera.

  Attributes:
    number: from 0, of all pictures that the camera gave.
    time: when it came, in seconds of the clock.
    image: RGB.
  """

  number: int
  time: float
  image: Image


class Camera(NamedTuple):
  """Where pictures come from.

  Attributes:
    fps: pictures a second.
    read: waits for the next picture and returns it; None where there are no more.
    close: lets go of the device.
  """

  fps: float
  read: Callable[[], Image | None]
  close: Callable[[], object]


def camera_named(text: str) -> int | Path | None:
  """Returns what a --motion names in place of a file: the number of a camera, or a film that plays as one; else None.

  "camera" is the first camera, "camera:1" the second, "camera:FILM" a film; a file of that name is "./camera".

  Raises:
    UserError: nothing stands behind the colon.
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
  """Opens a camera, or a film that plays at its own rate as one.

  Args:
    name: of `camera_named`.
    fps: the rate to ask the camera for, or at which the film plays; default its own.
    device: opens a camera by its number, as OpenCV's VideoCapture does.
    clock, sleep: of this machine.

  Raises:
    UserError: there is no such camera, it may not be used, or the film can't be read.
  """
  if isinstance(name, Path):
    info = probe_film(name)
    rate = float(fps or info.fps)
    ticks, frames = tick_frames(info), read_frames(name, info=info)
    frames = _paced(frames if ticks is None else pick(frames, ticks), rate, clock, sleep)
    return Camera(rate, lambda: next(frames, None), lambda: None)
  with quiet_stderr():  # OpenCV tells there what we tell in one line
    capture = device(name)
    for key, value in ((cv2.CAP_PROP_FRAME_WIDTH, _SIZE[0]), (cv2.CAP_PROP_FRAME_HEIGHT, _SIZE[1])):
      capture.set(key, value)
    if fps is not None:
      capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the driver can: older pictures need not wait in it
    works = capture.isOpened() and capture.read()[0]
  if not works:
    capture.release()
    raise UserError(
      f"no picture comes from camera {name}: see that it is plugged in, that no other program uses it and that this one"
      f" may (Linux: your user is in the group video), or name another (--motion=camera:{name + 1})"
    )
  said = capture.get(cv2.CAP_PROP_FPS)

  def read() -> Image | None:
    there, image = capture.read()
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if there else None

  return Camera(float(said) if _CREDIBLE[0] <= said <= _CREDIBLE[1] else _USUAL, read, capture.release)


def _paced(
  frames: Iterator[Image], fps: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Image]:
  """The frames, each when it is due; the first when it is asked for."""
  start = None
  for number, frame in enumerate(frames):
    start = clock() if start is None else start
    while (wait := start + number / fps - clock()) > 0:
      sleep(wait)
    yield frame


class Newest:
  """Reads pictures in a thread, and keeps the newest until it is taken; those that are never taken are dropped.

  A context manager. What reading raises is raised by `take`.
  """

  def __init__(self, read: Callable[[], Image | None], clock: Callable[[], float] = time.monotonic):
    """Takes what reads (see `Camera`), and the clock that pictures are stamped by, in seconds."""
    self._read, self._clock = read, clock
    self._changed = threading.Condition()
    self._picture: Picture | None = None
    self._error: BaseException | None = None
    self._ended = False
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> "Newest":
    self._thread.start()
    return self

  def __exit__(self, *error: Any) -> None:
    self.stop()
    self._thread.join()

  def take(self) -> Picture | None:
    """Waits for a picture that was not taken before, and returns it; None where there are no more, or after `stop`."""
    with self._changed:
      self._changed.wait_for(lambda: self._picture is not None or self._ended)
      picture, self._picture = self._picture, None
      if picture is None and self._error is not None:
        raise self._error
      return picture

  def stop(self) -> None:
    """Ends the pictures: also one that is there already is not taken any more."""
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
    except Exception as error:  # noqa: BLE001  (for who takes)
      self._error = error
    with self._changed:
      self._ended = True
      self._changed.notify_all()
