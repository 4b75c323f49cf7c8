"""Views escape user input and hide other owners' names; a video is served while it grows."""

import asyncio
import dataclasses

from anchor_jax.app import views
from anchor_jax.app.access.owners import Gate, owner_of
from anchor_jax.app.access.people import PersonRecord
from anchor_jax.app.jobs.progress import Bar
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, RUNNING, Job
from anchor_jax.app.jobs.workshop import JobProgress
from anchor_jax.app.server import growing

BAD = "<img src=x onerror=alert(1)>"
SETTINGS = {"label": BAD, "seconds": 4, "trained": True, "fast": True}
JOB = Job("0" * 16, "1" * 16, "a", "video", SETTINGS, RUNNING)
PERSON = PersonRecord("1" * 16, BAD, "a", "film", 128)


def in_state(state, **changes):
  bar = Bar("generate", 20, 80, 95.0)
  return JobProgress(dataclasses.replace(JOB, state=state, **changes), 0, "generating the video", bar)


def test_user_input_is_escaped():
  jobs = [in_state(RUNNING), in_state(DONE), in_state(FAILED, error=BAD), in_state(CANCELLED)]
  shown = [views.queue(jobs, "a", {PERSON.name: BAD}), views.making(jobs), views.pair(PERSON, JOB, JOB)]
  shown += [views.video_card(PERSON, job) for job in jobs]
  shown += [views.found(PERSON, [BAD], True, None), views.job_card(in_state(FAILED, error=BAD))]
  assert all("<img src=x" not in text for text in shown) and all("&lt;img" in text for text in shown)


def test_the_queue_names_only_the_owners_jobs():
  jobs = [in_state(RUNNING), JobProgress(dataclasses.replace(JOB, owner="b", state="waiting"), 1, "", None)]
  shown = views.queue(jobs, "a", {PERSON.name: "Ana"})
  assert "Making a video · Ana" in shown and "20 of 80, 2 min left" in shown
  assert "Another user's job" in shown and "number 2" in shown and shown.count("Ana") == 1
  assert "Nothing is running" in views.queue([], "a", {})


def test_training_shows_bar_curve_and_preview():
  curves = {"loss": [(1, 3.0), (2, 2.0), (3, 1.0)], "validation_loss": [(2, 2.5)]}
  shown = views.training(PERSON, curves, 2, in_state(RUNNING), 7)
  assert 'aria-valuenow="25"' in shown and shown.count("<circle") == 1 and "training?n=7" in shown
  assert 'points="10.0,10.0 300.0,75.0 590.0,140.0"' in shown
  assert "<svg" not in views.training(PERSON, {}, 0, None, 0)


def test_a_growing_video_is_sent_to_its_end(tmp_path):
  partial, final = tmp_path / "a.partial.mp4", tmp_path / "a.mp4"
  seen, ended = [], []

  async def watch():
    async for data in growing(partial, final, lambda: not ended):
      seen.append(data)
      if len(seen) == 1:
        with partial.open("ab") as file:
          file.write(b"second")
      else:
        ended.append(True)

  partial.write_bytes(b"first")
  asyncio.run(watch())
  assert b"".join(seen) == b"firstsecond"

  async def collect():
    return [data async for data in growing(tmp_path / "b.partial.mp4", final, lambda: False)]

  assert asyncio.run(collect()) == []
  final.write_bytes(b"complete")
  assert asyncio.run(collect()) == [b"complete"]


def test_browsers_are_separate_owners_only_on_a_network(tmp_path):
  alone, network = Gate(tmp_path, False), Gate(tmp_path, True)
  assert alone.owner({}) == owner_of(alone.local_token) and alone.new_cookie({}, "") is None
  assert network.owner({}) is None
  first = network.new_cookie({}, "")
  assert network.owner({"anchor_owner": first}) not in (None, alone.owner({}))
  assert network.new_cookie({"anchor_owner": first}, "") is None
  assert network.new_cookie({"anchor_owner": first}, "guess") is None
  assert network.new_cookie({"anchor_owner": first}, network.local_token) == network.local_token
  assert network.owner({"anchor_owner": network.local_token}) == alone.owner({})
