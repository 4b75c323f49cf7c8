"""Held-out frames decide whether a person's head is used."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from tiny import train_by_drawing, write_untrained

from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.formats.folders import read_models
from anchor_jax.inference import head_choice
from anchor_jax.inference.head_choice import CHOICE, HeadChoice, choose_head, read_head_choice
from anchor_jax.inference.person import load


def holding_out(config, count):
  return dataclasses.replace(config, data=dataclasses.replace(config.data, validation=count))


def write_part(workdir, config):
  picture = open_prepared(config.data.path).read(0, ("frame",))["frame"]
  weights = read_models(pathlib.Path(config.init), config.part)[1]
  write_untrained(workdir / config.part, config, weights, picture)


@pytest.fixture
def workdir(tmp_path, initialized_runs):
  """Body and head, each with the last two of ten frames held out."""
  for part in ("body", "head"):
    write_part(tmp_path / "ana", holding_out(initialized_runs(part, steps=1), 2))
  return tmp_path / "ana"


def paint(monkeypatch, source, body, head):
  """Lets body and head paint the true frames with errors on the face; away from it, both are wrong."""
  seen = []

  def animate(body_part, head_part, motion):
    for number, frame in zip(range(len(source) - motion.length, len(source)), motion.frames(0), strict=True):
      seen.append(number)
      record = source.read(number, ("frame", "face_mask"))
      np.testing.assert_array_equal(frame.face_mask, record["face_mask"])
      face, true = record["face_mask"] > 127, record["frame"]
      off = lambda error, true=true: np.where(true < 128, true + np.uint8(error), true - np.uint8(error))
      wrong = lambda error, face=face, off=off: np.where(face, off(error), 0).astype(np.uint8)
      yield wrong(head), wrong(body)

  monkeypatch.setattr(head_choice, "animate_parts", animate)
  return seen


def test_a_head_that_makes_faces_worse_is_left_out(workdir, prepared, monkeypatch):
  seen = paint(monkeypatch, open_prepared(prepared), body=4, head=8)
  choice = choose_head(workdir)
  assert seen == [8, 9] and choice.frames == 2 and not choice.helps
  np.testing.assert_allclose(choice.body, 20 * np.log10(255 / 4), atol=1e-3)
  np.testing.assert_allclose(choice.head, 20 * np.log10(255 / 8), atol=1e-3)
  assert "left out" in choice.sentence() and read_head_choice(workdir) == choice
  assert load(workdir).head is None and load(workdir, head=True).head is not None
  paint(monkeypatch, open_prepared(prepared), body=4, head=2)
  assert choose_head(workdir).helps and load(workdir).head is not None and load(workdir, head=False).head is None


def test_without_held_out_frames_the_head_is_used(workdir, prepared, monkeypatch, initialized_runs):
  paint(monkeypatch, open_prepared(prepared), body=4, head=8)
  assert choose_head(workdir) is not None
  shutil.rmtree(workdir / "body")
  write_part(workdir, initialized_runs("body", steps=1))  # trained on all frames
  assert choose_head(workdir) is None
  assert read_head_choice(workdir) is None and load(workdir).head is not None


def test_a_damaged_choice_is_not_followed(workdir, caplog):
  (workdir / "head" / CHOICE).write_text('{"body": "good"}')
  assert load(workdir).head is not None and "the head is used" in caplog.text
  assert HeadChoice(30.0, 30.0, 4).helps is False


def test_what_cannot_be_compared_fails_no_training(workdir, prepared, monkeypatch, caplog):
  paint(monkeypatch, open_prepared(prepared), body=4, head=8)
  assert choose_head(workdir) is not None

  def gone(path):
    raise UserError(f"there is no prepared folder {path}")

  monkeypatch.setattr(head_choice, "open_prepared", gone)
  assert choose_head(workdir) is None and "was not compared" in caplog.text
  assert read_head_choice(workdir) is None


@pytest.mark.slow
def test_training_chooses(workdir, initialized_runs, capsys):
  shutil.rmtree(workdir / "head")
  train_by_drawing(holding_out(initialized_runs("head", steps=1, checkpoint_every=1), 2), workdir)
  choice = read_head_choice(workdir)
  assert choice.frames == 2 and choice.sentence() in capsys.readouterr().out
