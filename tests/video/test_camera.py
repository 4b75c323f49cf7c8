"""A camera delivers its newest picture; pictures that were not taken in time are dropped."""

import queue
import threading

import cv2
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.video.camera import NewestPicture, camera_named, open_camera
from anchor_jax.video.write import VideoWriter

BLUE = np.full((4, 6, 3), (200, 100, 50), np.uint8)  # as OpenCV orders it


class Device:
  """A stand-in for OpenCV's VideoCapture."""

  def __init__(self, works=True, fps=0.0):
    self.works, self.fps, self.released = works, fps, False

  def isOpened(self):
    return self.works

  def set(self, key, value):
    return True

  def get(self, key):
    return self.fps if key == cv2.CAP_PROP_FPS else 0.0

  def read(self):
    return self.works, BLUE if self.works else None

  def release(self):
    self.released = True


@pytest.mark.parametrize(
  "text,name",
  [("camera", 0), ("camera:2", 2), ("camera:a/film.mp4", "a/film.mp4"), ("./camera", None), ("cameras", None)],
)
def test_which_motion_values_name_a_camera(text, name):
  found = camera_named(text)
  assert found == name if isinstance(name, int) or name is None else str(found) == name
  with pytest.raises(UserError, match="give the number of a camera"):
    camera_named("camera:")


@pytest.mark.parametrize("reported,fps", [(15.0, 15.0), (0.0, 30.0), (float("nan"), 30.0), (1e5, 30.0)])
def test_a_camera_delivers_rgb_at_a_credible_rate(reported, fps):
  device = Device(fps=reported)
  camera = open_camera(0, device=lambda number: device)
  image = camera.read()
  assert camera.fps == fps and image is not None and image[0, 0].tolist() == [50, 100, 200]
  device.works = False  # unplugged
  assert camera.read() is None
  camera.close()
  assert device.released


def test_a_missing_camera_is_a_one_line_error(capfd):
  device = Device(works=False)
  with pytest.raises(UserError, match=r"no picture comes from camera 1: .*--motion=camera:2"):
    open_camera(1, device=lambda number: device)
  assert device.released
  with pytest.raises(UserError, match="no picture comes from camera 97"):
    open_camera(97)
  assert capfd.readouterr().err == ""


def test_a_film_plays_in_real_time_in_place_of_a_camera(tmp_path):
  with VideoWriter(tmp_path / "film.mp4", 10) as writer:
    for gray in range(0, 200, 50):
      writer.write(np.full((32, 32, 3), gray, np.uint8))
  now, slept = [5.0], []

  def sleep(seconds):
    slept.append(seconds)
    now[0] += seconds

  camera = open_camera(tmp_path / "film.mp4", clock=lambda: now[0], sleep=sleep)
  images = []
  for delay in (0.0, 0.0, 0.25, 0.0):
    now[0] += delay
    images.append(camera.read())
  assert [round(float(image.mean()) / 50) for image in images] == [0, 1, 2, 3] and camera.read() is None
  assert camera.fps == 10.0 and slept == pytest.approx([0.1])  # the third and the fourth were overdue
  with pytest.raises(UserError, match="there is no"):
    open_camera(tmp_path / "other.mp4")


def test_take_returns_the_newest_picture_and_nothing_queues():
  coming, read = queue.Queue(), threading.Semaphore(0)
  now = iter(range(100))

  def reads():
    read.release()
    return coming.get()

  def come(*values):
    for value in values:
      coming.put(None if value is None else np.full((2, 2, 3), value, np.uint8))
      read.acquire()  # the picture was stored, and the reader waits for the next one

  with NewestPicture(reads, clock=lambda: float(next(now))) as newest:
    read.acquire()
    come(10, 11, 12)
    picture = newest.take()
    assert picture.number == 2 and picture.image[0, 0, 0] == 12 and picture.time == 2.0
    come(13)
    assert newest.take().number == 3
    come(14)
    coming.put(None)
    newest._thread.join()
    assert newest.take().number == 4 and newest.take() is None and newest.take() is None


def test_stop_ends_the_pictures_and_take_raises_read_errors():
  def broken():
    raise UserError("the film is damaged")

  with NewestPicture(broken) as newest, pytest.raises(UserError, match="damaged"):
    newest.take()
  with NewestPicture(lambda: BLUE) as newest:
    assert newest.take() is not None
    newest.stop()
    assert newest.take() is None
