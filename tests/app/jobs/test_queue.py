"""Jobs run one at a time and in order, and can be canceled, killed and resumed; the processes are small shells."""

import fcntl
import os
import subprocess
import time

import pytest

from anchor_jax.app.access.people import PeopleFolder
from anchor_jax.app.jobs.commands import Command
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, MAX_QUEUED, RUNNING, WAITING, Jobs
from anchor_jax.app.jobs.worker import Worker, _end_leftover
from anchor_jax.core.errors import UserError


def shell(text):
  return Command("a shell", ("/bin/sh", "-c", text))


def until(condition, seconds=300):  # less than jobs sleep here, more than a busy machine needs
  limit = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < limit, "timed out"
    time.sleep(0.01)


@pytest.fixture
def people(tmp_path):
  return PeopleFolder(tmp_path)


@pytest.fixture
def ana(people):
  return people.add(people.new("Ana", "a", "film", 128, True)).name


@pytest.fixture
def work(people, tmp_path):
  """Function that starts a worker whose jobs run the given commands; workers are stopped at the end."""
  started = []

  def start(*commands):
    jobs = Jobs(people)
    worker = Worker(jobs, lambda _: [shell(text) for text in commands], tmp_path)
    worker.start()
    started.append(worker)
    return jobs, worker

  yield start
  for worker in started:
    worker.stop()


def test_jobs_run_one_at_a_time_in_order(work, people, ana, tmp_path):
  jobs = Jobs(people)
  names = [jobs.add(ana, "a", "video").name for _ in range(3)]
  jobs, _ = work("[ ! -e busy ] && touch busy && sleep 0.05 && rm busy", f"echo x >> {tmp_path}/done")
  until(lambda: not jobs.queue())
  assert [jobs.get(name).state for name in names] == [DONE] * 3
  assert (tmp_path / "done").read_text() == "x\n" * 3
  assert jobs.get(names[0]).ended <= jobs.get(names[1]).started


def test_the_queue_is_ordered_and_limited(people, ana):
  jobs = Jobs(people)
  first = jobs.add(ana, "a", "train")
  with pytest.raises(UserError, match="already"):
    jobs.add(ana, "a", "train")
  others = [jobs.add(ana, "a", "video") for _ in range(MAX_QUEUED - 1)]
  with pytest.raises(UserError, match="in the queue already"):
    jobs.add(ana, "a", "video")
  jobs.add(ana, "b", "video")
  assert jobs.take().name == first.name
  assert [job.name for job in jobs.queue()][: len(others) + 1] == [first.name, *(job.name for job in others)]
  assert {job.owner for job in jobs.of(ana, "b")} == {"b"}


def test_a_failure_is_reported_without_paths(work, people, ana):
  jobs, worker = work("echo 'error: /a/b.mp4 is bad: take another'; exit 2")
  job = jobs.add(ana, "a", "video")
  worker.wake()
  until(lambda: not jobs.queue())
  assert (jobs.get(job.name).state, jobs.get(job.name).error) == (FAILED, "b.mp4 is bad: take another")


def test_an_unexpected_failure_ends_only_its_own_job(people, ana, tmp_path, caplog):
  jobs = Jobs(people)
  first, second = jobs.add(ana, "a", "train"), jobs.add(ana, "a", "video")

  def commands(job):
    if job.name == first.name:
      raise KeyError("a secret")
    return [shell("true")]

  worker = Worker(jobs, commands, tmp_path)
  worker.start()
  until(lambda: not jobs.queue())
  worker.stop()
  assert [jobs.get(job.name).state for job in (first, second)] == [FAILED, DONE]
  assert "secret" not in jobs.get(first.name).error and "a secret" in caplog.text


def test_a_jobs_state_changes_in_memory_if_the_disk_is_full(people, ana, monkeypatch, caplog):
  jobs = Jobs(people)
  job = jobs.add(ana, "a", "train")

  def full(_):
    raise UserError("the disk is full")

  monkeypatch.setattr(jobs, "_write", full)
  with pytest.raises(UserError, match="full"):
    jobs.add(ana, "a", "video")
  assert [one.name for one in jobs.queue()] == [job.name]
  assert jobs.cancel(job.name).state == CANCELLED and not jobs.queue() and "not saved" in caplog.text


def test_a_job_that_started_after_it_was_listed_can_be_canceled(work, people, ana, tmp_path):
  jobs, worker = work(f"sleep 60; touch {tmp_path}/never")
  waiting = jobs.add(ana, "a", "train")  # the state that a browser saw
  worker.wake()
  until(lambda: jobs.get(waiting.name).state == RUNNING)
  worker.cancel(waiting)
  worker.wait_until_ended(waiting)
  assert jobs.get(waiting.name).state == CANCELLED and not (tmp_path / "never").exists()


@pytest.mark.parametrize("content", ["0", "1", "-1", "x", "9" * 30])
def test_a_lock_without_a_plausible_process_id_ends_nothing(people, ana, content, monkeypatch):
  jobs = Jobs(people)
  job = jobs.add(ana, "a", "train")
  ended = []
  monkeypatch.setattr("anchor_jax.app.jobs.worker.os.killpg", lambda group, _: ended.append(group))
  with jobs.path(job, ".lock").open("w+") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(content)
    lock.flush()
    _end_leftover(jobs.path(job, ".lock"))
  assert not ended


def test_running_and_waiting_jobs_can_be_canceled(work, ana, tmp_path):
  jobs, worker = work(f"echo $$ > {tmp_path}/pid; exec sleep 600", "touch never")
  runs, waits = jobs.add(ana, "a", "train"), jobs.add(ana, "a", "video")
  worker.wake()
  until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
  worker.cancel(jobs.get(waits.name))
  worker.cancel(jobs.get(runs.name))
  worker.wait_until_ended(runs)
  assert [jobs.get(job.name).state for job in (runs, waits)] == [CANCELLED] * 2
  with pytest.raises(ProcessLookupError):
    os.kill(int((tmp_path / "pid").read_text()), 0)
  assert not (tmp_path / "never").exists()


def test_a_job_resumes_with_its_current_command_after_a_restart(work, people, ana, tmp_path):
  jobs, worker = work("echo 1 >> first", f"[ -e {tmp_path}/go ] || exec sleep 600")
  job = jobs.add(ana, "a", "train")
  worker.wake()
  until(lambda: jobs.get(job.name).step == 1)
  worker.stop()
  assert jobs.get(job.name).state == WAITING
  (tmp_path / "go").touch()
  jobs, _ = work("echo 1 >> first", f"[ -e {tmp_path}/go ] || exec sleep 600")
  until(lambda: not jobs.queue())
  assert jobs.get(job.name).state == DONE and (tmp_path / "first").read_text() == "1\n"


def test_a_leftover_process_of_a_killed_server_is_ended_before_its_job_resumes(work, people, ana, tmp_path):
  jobs = Jobs(people)
  job = jobs.take() if jobs.add(ana, "a", "train") else None
  # As after a killed server: the process holds the lock, and nothing waits for it.
  with jobs.path(job, ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    leftover = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, pass_fds=[lock.fileno()])
    lock.write(str(leftover.pid))
  assert jobs.get(job.name).state == RUNNING
  jobs, _ = work("true")
  assert leftover.wait(timeout=300)
  until(lambda: not jobs.queue())
  assert jobs.get(job.name).state == DONE


def test_removing_a_person_ends_the_running_job(work, people, ana, tmp_path):
  jobs, worker = work(f"trap '' TERM; echo > {tmp_path}/up; sleep 600 & wait; wait; sleep 600")
  job = jobs.add(ana, "a", "train")
  worker.wake()
  until(lambda: (tmp_path / "up").exists())
  jobs.forget(ana)
  worker.wake()
  worker.wait_until_ended(job)
  people.remove(people.find(ana))
  assert not jobs.queue() and not people.folder_of(ana).exists()
