"""Each output has one writer: a second one is refused, and the leftovers of a killed one block nobody."""

import errno
import signal
import subprocess
import sys
import threading

import filelock
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import lock_path, locked
from anchor_jax.files.manifest import FolderKind
from anchor_jax.files.outputs import new_file, new_folder
from anchor_jax.video.resumable import ResumableWriter
from anchor_jax.video.write import VideoWriter

HOLD = """import sys, time; from anchor_jax.files.locks import locked
with locked(sys.argv[1]): print("held", flush=True); time.sleep(600)"""
WRITERS = {
  "file": lambda path: new_file(path, lock=True).__enter__(),
  "folder": lambda path: new_folder(path, FolderKind("things")).__enter__(),
  "video": lambda path: VideoWriter(path, 25).__enter__(),
  "resumable": lambda path: ResumableWriter(path, 25, {}, resume=True),
}


@pytest.fixture
def holder(tmp_path):
  """A process that holds the lock of an output."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(tmp_path / "film.mp4")], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path, holder, monkeypatch):
  (tmp_path / "link").symlink_to(tmp_path)
  monkeypatch.chdir(tmp_path)
  for place in (tmp_path / "film.mp4", tmp_path / "link/film.mp4", "film.mp4"):
    for name, writer in WRITERS.items():
      with pytest.raises(UserError, match=r"film\.mp4 is being written by another process: wait until") as error:
        writer(place)
      assert "\n" not in str(error.value), name
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert lock_path("film.mp4").exists()
  writer = ResumableWriter(tmp_path / "film.mp4", 25, {}, resume=True)
  assert lock_path("film.mp4").exists()
  writer.close()
  assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_locks_are_reentrant_within_a_thread_only(tmp_path):
  path, answers = tmp_path / "film.mp4", []

  def ask():
    try:
      with locked(path):
        answers.append("taken")
    except UserError:
      answers.append("refused")

  def from_another_thread():
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

  with locked(path):
    with locked(path):
      from_another_thread()
    ask()
    from_another_thread()
  ask()
  from_another_thread()
  assert answers == ["refused", "taken", "refused", "taken", "taken"] and not list(tmp_path.iterdir())


def test_a_lock_ends_with_an_error_and_can_be_released_by_another_thread(tmp_path):
  path = tmp_path / "film.mp4"
  with pytest.raises(KeyboardInterrupt), locked(path):
    raise KeyboardInterrupt
  with pytest.raises(UserError, match="was started"):
    (tmp_path / "film.partial.mp4").write_bytes(b"\0\0\0\x08mdat")
    try:
      ResumableWriter(path, 25, {}, resume=True)
    except UserError as error:
      raise UserError("was started") from error
  assert not lock_path(path).exists()
  writer = ResumableWriter(path, 25, {})
  thread = threading.Thread(target=writer.close)
  thread.start()
  thread.join()
  with locked(path):
    pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()])
def test_outputs_are_written_unlocked_on_file_systems_without_locks(tmp_path, monkeypatch, error):
  def fails(self, *arguments, **options):
    raise error

  monkeypatch.setattr(filelock.FileLock, "acquire", fails)
  with new_file(tmp_path / "a.txt", lock=True) as partial:
    partial.write_text("a")
  assert (tmp_path / "a.txt").read_text() == "a"
