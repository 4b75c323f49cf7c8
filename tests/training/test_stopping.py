"""The last saved step of a run that stops: at Ctrl-C or SIGTERM, or because validation runs out of memory."""

import dataclasses
import os
import signal
import types

import jax
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.store.weights import read_part
from anchor_jax.train import train
from anchor_jax.training import loop
from anchor_jax.training.batches import TrainingData
from anchor_jax.training.signals import StoppedBySignal, catch_stop_signals


@pytest.fixture
def run(initialized_runs, tmp_path, monkeypatch):
  """run(at, **changes) trains with a step that is not compiled, and calls at(step) after each step."""
  monkeypatch.setattr(loop, "check_step_memory", lambda *_: None)
  monkeypatch.setattr(loop, "step_flops", lambda *_: 0.0)
  monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
  before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a process in the background would ignore Ctrl-C

  def start(at, **changes):
    def step(state, frozen, batch, key):
      at(int(state.step) + 1)
      return dataclasses.replace(state, step=state.step + 1), {"loss": jax.numpy.float32(1.0)}

    monkeypatch.setattr(loop, "start_compiling", lambda *_: types.SimpleNamespace(result=lambda: (step, 0.0)))
    config = initialized_runs("vae", **{"steps": 6, "checkpoint_every": 0, **changes})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, validation=2))
    train(config, tmp_path, jax.devices()[:1])

  yield start
  signal.signal(signal.SIGINT, before)


def saved(workdir):
  return sorted(int(path.name) for path in (workdir / "vae" / "checkpoints").iterdir())


@pytest.mark.parametrize("number,code,name", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_stops_the_run_after_the_current_step_which_is_saved(run, tmp_path, number, code, name, capfd):
  with pytest.raises(StoppedBySignal) as end:
    run(lambda step: step == 3 and signal.raise_signal(number))
  assert (end.value.code, saved(tmp_path)) == (code, [3])
  assert end.value.message == f"stopped by {name} after step 3, which is saved: start again to go on"
  assert ("once more ends it at once" in capfd.readouterr().err) == (number == signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_no_step_is_lost_if_ctrl_c_ends_the_reader_processes(run, tmp_path, monkeypatch):
  """Ctrl-C reaches all processes in the foreground, so that the next batch never arrives."""
  batches = TrainingData.training_batches

  class Failing:
    def __init__(self, inner):
      self.inner, self.left = inner, 2

    def __next__(self):
      self.left -= 1
      if self.left < 0:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("a worker exited")
      return next(self.inner)

    def get_state(self):
      return self.inner.get_state()

  monkeypatch.setattr(TrainingData, "training_batches", lambda self: Failing(batches(self)))
  with pytest.raises(StoppedBySignal, match="130"):
    run(lambda step: None)
  assert saved(tmp_path) == [2]


def test_the_step_is_saved_before_validation_can_fail(run, tmp_path, monkeypatch):
  def out_of_memory(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  monkeypatch.setattr(loop, "make_validation", lambda *_: out_of_memory)
  with pytest.raises(UserError, match=r"lower config\.data\.batch_size"):
    run(lambda step: None, checkpoint_every=2)
  assert saved(tmp_path) == [2] and read_part(tmp_path, "vae").step == 2


def test_a_signal_during_validation_stops_after_the_saved_step(run, tmp_path, monkeypatch):
  def validate(trained, frozen, stopped):
    assert saved(tmp_path) == [2] and not stopped()
    signal.raise_signal(signal.SIGINT)
    assert stopped()

  monkeypatch.setattr(loop, "make_validation", lambda *_: validate)
  with pytest.raises(StoppedBySignal, match="130"):
    run(lambda step: None, checkpoint_every=2)
  assert saved(tmp_path) == [2]


def test_a_process_in_the_background_still_ignores_ctrl_c():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with catch_stop_signals() as stop:
      os.kill(os.getpid(), signal.SIGINT)
      assert not stop.requested_after(1)
  finally:
    signal.signal(signal.SIGINT, before)
