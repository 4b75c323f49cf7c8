"""A job's progress: bars in its log, errors without paths, loss curves."""

import json
import os

from anchor_jax.app.jobs.progress import Bar, bar_in, error_in, loss_curves, report_lines_in, tail

LOG = (
  "compiled the step in 3.1 s\n"
  "train body:   5%|▌         | 10/200 [00:12<03:45,  1.2step/s, loss=0.1]\r"
  "train body:  10%|█         | 20/200 [00:24<1:03:40,  1.2step/s, loss=0.05]"
)


def test_the_newest_bar_counts():
  assert bar_in(LOG) == Bar("train body", 20, 200, 3820.0)
  assert bar_in(LOG).share == 0.1
  assert bar_in("generate:   0%|          | 0/100 [00:00<?, ?frame/s]") == Bar("generate", 0, 100, None)
  assert bar_in("nothing yet\nprepared 3 frames") is None


def test_names_that_look_like_a_bar_are_ignored():
  for name in ("x: 1%|a| 1/2 [0<::", "x: 1%|a| 1/2 [0<:?:", f"x: 1%|a| {'9' * 5000}/2 [0<1"):
    assert bar_in(f"the background behind {name}") is None or "?" in name


def test_errors_have_no_paths_and_crashes_no_traceback():
  assert error_in("x\nerror: /a/b/film_1.mp4 is empty: copy it again\n") == "film_1.mp4 is empty: copy it again"
  crash = error_in('Traceback (most recent call last):\n  File "/a/b.py", line 3\nKilled')
  assert "/a" not in crash and "Traceback" not in crash and crash


def test_the_report_of_prepare_has_no_paths():
  log = (
    "bar | 1/2\rprepared 90 frames of 1 person (88 with a face) in 3 s; look at /x/y/preview.png\n"
    "film_1: 90 of 100 frames are used, in 1 clip from 1 shot; skipped: 10 dark\n"
    "the background behind Ana is never visible in 3.0 % of the picture (purple in /x/y/appearance.png)\n"
  )
  assert report_lines_in(log) == [
    "prepared 90 frames of 1 person (88 with a face) in 3 s",
    "film 1: 90 of 100 frames are used, in 1 clip from 1 shot; skipped: 10 dark",
    "the background behind Ana is never visible in 3.0 % of the picture",
  ]
  assert report_lines_in("still looking") == []


def test_curves_of_a_resumed_training_have_each_step_once(tmp_path):
  entries = [
    {"compile_seconds": 3},
    {"step": 1, "loss": 3.0},
    {"step": 2, "loss": 2.0},
    {"step": 2, "validation_loss": 9.0},
    {"step": 3, "loss": 1.5},
    {"step": 2, "loss": 1.8},  # resumed from the checkpoint of step 1
  ]
  file = tmp_path / "metrics.jsonl"
  file.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"step": 3, "lo')
  assert loss_curves(file) == {"loss": [(1, 3.0), (2, 1.8)], "validation_loss": [(2, 9.0)]}
  assert loss_curves(tmp_path / "none") == {}
  odd = [3, [], {"step": "x", "loss": 1}, {"step": 1, "loss": "x"}, {"step": 1, "loss": float("nan")}, {"step": None}]
  file.write_text("".join(json.dumps(entry) + "\n" for entry in [*odd, entries[1]]) + "[" * 100_000)
  assert loss_curves(file) == {"loss": [(1, 3.0)]}
  file.unlink()
  os.mkfifo(file)
  assert loss_curves(file) == {} and tail(file) == ""


def test_only_the_end_of_the_newest_commands_log_is_read(tmp_path):
  (tmp_path / "log").write_bytes(f"{LOG}\n== next\n".encode() + b"x" * 20)
  assert bar_in(tail(tmp_path / "log")) is None
  (tmp_path / "log").write_bytes(b"x" * 100_000 + "é end".encode())
  assert tail(tmp_path / "log").endswith("é end") and len(tail(tmp_path / "log")) < 9000
  assert tail(tmp_path / "none") == ""
