"""`generate --live` with a camera: follows its pictures and sends frames to a file or a window until stopped."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.live import Timing, follow, warm_up
from anchor_jax.inference.person import Person
from anchor_jax.inference.request import Request, body_measures, frame_settings
from anchor_jax.landmarks.model import LandmarkModel
from anchor_jax.motion.following import LandmarkFinder, track_live
from anchor_jax.video.camera import NewestPicture
from anchor_jax.video.resumable import ResumableWriter

_WINDOW_SIDE = 512  # pixels: smaller frames are enlarged to about this


def animate_camera(
  request: Request,
  person: Person,
  marked: Callable[[Any], Any],
  model: contextlib.AbstractContextManager[LandmarkFinder] | None = None,
) -> tuple[int, Timing]:
  """Animates a person from a camera until Ctrl-C, the window's q, --frames, or the end of a film used as a camera.

  Args:
    request: with an open camera, which is closed in the end.
    person: with windows of one frame.
    marked: adds the watermark to a frame.
    model: finds landmarks; default the landmark model.

  Returns:
    The number of frames, and the timing.

  Raises:
    UserError: nobody is in view, no window can be opened, or the file can't be written.
  """
  args, camera, reference = request.args, request.camera, request.reference
  assert camera is not None, "the request has a camera"
  with contextlib.ExitStack() as stack:
    stack.callback(camera.close)
    measures = body_measures(request, person)
    show = stack.enter_context(window(f"{args.checkpoint.name}: press q to quit")) if args.show else None
    writer = None
    if args.output is not None:
      settings = frame_settings(request, person, camera.fps, measures)
      writer = stack.enter_context(contextlib.closing(ResumableWriter(args.output, camera.fps, settings, live=True)))
    finder = stack.enter_context(LandmarkModel("a camera", False, args.landmarks) if model is None else model)
    warm_up(person, reference, args.seed)
    pictures = stack.enter_context(NewestPicture(camera.read))
    stack.enter_context(ended_by_interrupt(pictures.stop))
    options = {"size": person.size, "measures": measures, "mapped": not args.no_retarget, "clock": time.monotonic}
    poses = track_live(pictures.take, finder, report=functools.partial(print, flush=True), **options)
    output = LiveOutput(camera.fps, marked, writer, show, pictures.stop)
    timing = follow(person, poses, camera.fps, output, reference, args.seed, args.frames)
    if writer is not None:
      writer.finish(request.tags)
  return output.frames, timing


class LiveOutput:
  """Sends frames to a file, timed like the camera's pictures, and to a window.

  Attributes:
    frames: number of frames so far.
  """

  def __init__(
    self,
    fps: float,
    marked: Callable[[Any], Any],
    writer: Any,
    show: Callable[[Any], bool] | None,
    stop: Callable[[], object],
  ):
    """Takes the file's ticks per second, the watermark function, the outputs, and what to call when the user quits."""
    self.frames, self._fps, self._marked = 0, fps, marked
    self._writer, self._show, self._stop = writer, show, stop
    self._start, self._tick = 0.0, -1

  def __call__(self, frame: UInt8[NdArray, "H W 3"], time: float) -> None:
    """Writes and shows a frame whose camera picture arrived at `time` seconds."""
    if not self.frames:
      self._start = time
    self._tick = max(self._tick + 1, round((time - self._start) * self._fps))
    frame = self._marked(frame)
    if self._writer is not None:
      self._writer.write(frame, self._tick)
    self.frames += 1
    if self._show is not None and not self._show(frame):
      self._stop()


@contextlib.contextmanager
def ended_by_interrupt(stop: Callable[[], object]) -> Iterator[None]:
  """Makes the first Ctrl-C call `stop`, so that frames in flight are finished; the second interrupts as usual."""
  if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
    yield
    return
  before = signal.getsignal(signal.SIGINT)

  def handle(*_: Any) -> None:
    signal.signal(signal.SIGINT, before)
    stop()

  signal.signal(signal.SIGINT, handle)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def window(title: str) -> Iterator[Callable[[UInt8[NdArray, "H W 3"]], bool]]:
  """Opens a window; yields a function that shows a frame and returns False after q or once the window is closed.

  The window is Tk's, which comes with Python: the pinned OpenCV has no GUI.

  Raises:
    UserError: there is no screen or no Tk.
  """
  try:
    import tkinter

    root = tkinter.Tk()
  except ImportError:
    raise UserError(
      "--show needs Tk, which this Python lacks: install python3-tk, or write to a file (--output)"
    ) from None
  except tkinter.TclError as error:
    raise UserError(f"--show finds no screen ({error}): write to a file instead (--output)") from None
  root.title(title)
  label, closed = tkinter.Label(root), []
  label.pack()
  root.protocol("WM_DELETE_WINDOW", lambda: closed.append(True))
  root.bind("q", lambda _: closed.append(True))

  def show(frame: UInt8[NdArray, "H W 3"]) -> bool:
    scale = max(1, round(_WINDOW_SIDE / len(frame)))
    large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else frame
    label.picture = tkinter.PhotoImage(data=ppm(large))  # Tk drops pictures without a reference
    label.configure(image=label.picture)
    root.update()
    return not closed

  try:
    yield show
  finally:
    root.destroy()


def ppm(frame: UInt8[NdArray, "H W 3"]) -> bytes:
  """Returns the frame as a binary PPM file, which Tk reads without other libraries."""
  return b"P6 %d %d 255 " % (frame.shape[1], frame.shape[0]) + np.ascontiguousarray(frame).tobytes()
