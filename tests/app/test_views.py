"""What is shown: what users typed is escaped, other owners' jobs have no name, and a video is sent while it grows."""

import asyncio
import dataclasses

from anchor_jax.app import views
from anchor_jax.app.access.owners import Gate, owner_of
from anchor_jax.app.access.people import Person
from anchor_jax.app.jobs.progress import Bar
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, RUNNING, Job
from anchor_jax.app.jobs.workshop import Place
from anchor_jax.app.server import growing

BAD = "<img src=x onerror=alert(1)>"
SETTINGS = {"label": BAD, "seconds": 4, "trained": True, "fast": True}
JOB = Job("0" * 16, "1" * 16, "a", "video", SETTINGS, RUNNING)
PERSON = Person("1" * 16, BAD, "a", "film", 128)


def in_state(state, **changes):
  return Place(dataclasses.replace(JOB, state=state, **changes), 0, "making the video", Bar("generate", 20, 80, 95.0))


def test_nothing_that_was_typed_becomes_markup():
  places = [in_state(RUNNING), in_state(DONE), in_state(FAILED, error=BAD), in_state(CANCELLED)]
  shown = [views.line(places, "a", {PERSON.name: BAD}), views.making(places), views.pair(PERSON, JOB, JOB)]
  shown += [views.video_card(PERSON, place) for place in places]
  shown += [views.found(PERSON, [BAD], True, None), views.job_card(in_state(FAILED, error=BAD))]
  assert all("<img src=x" not in text for text in shown) and all("&lt;img" in text for text in shown)


def test_the_line_names_one_s_own_jobs_alone():
  places = [in_state(RUNNING), Place(dataclasses.replace(JOB, owner="b", state="waiting"), 1, "", None)]
  shown = views.line(places, "a", {PERSON.name: "Ana"})
  assert "Making a video · Ana" in shown and "20 of 80, 2 min left" in shown
  assert "Somebody else&#x27;s job" in shown or "Somebody else's job" in shown
  assert "place 2" in shown and shown.count("Ana") == 1
  assert "Nothing is running" in views.line([], "a", {})


def test_a_training_is_shown_with_bar_curve_and_picture():
  curves = {"loss": [(1, 3.0), (2, 2.0), (3, 1.0)], "validation_loss": [(2, 2.5)]}
  shown = views.training(PERSON, curves, 2, in_state(RUNNING), 7)
  assert 'aria-valuenow="25"' in shown and shown.count("<circle") == 1 and "training?n=7" in shown
  assert 'points="10.0,10.0 300.0,75.0 590.0,140.0"' in shown
  assert "<svg" not in views.training(PERSON, {}, 0, None, 0)


def test_a_video_is_sent_as_far_as_it_is_and_to_its_end(tmp_path):
  partial, whole = tmp_path / "a.partial.mp4", tmp_path / "a.mp4"
  seen, ended = [], []

  async def watch():
    async for data in growing(partial, whole, lambda: not ended):
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
    return [data async for data in growing(tmp_path / "b.partial.mp4", whole, lambda: False)]

  assert asyncio.run(collect()) == []
  whole.write_bytes(b"whole")
  assert asyncio.run(collect()) == [b"whole"]


def test_browsers_are_told_apart_only_on_a_network(tmp_path):
  alone, network = Gate(tmp_path, False), Gate(tmp_path, True)
  assert alone.owner({}) == owner_of(alone.own) and alone.new_cookie({}, "") is None
  assert network.owner({}) is None
  first = network.new_cookie({}, "")
  assert network.owner({"anchor_owner": first}) not in (None, alone.owner({}))
  assert network.new_cookie({"anchor_owner": first}, "") is None
  assert network.new_cookie({"anchor_owner": first}, "guess") is None
  assert network.new_cookie({"anchor_owner": first}, network.own) == network.own
  assert network.owner({"anchor_owner": network.own}) == alone.owner({})
