"""Which checkpoints stay, which one is read, and which records decide the best."""

import dataclasses
import errno
import json
import shutil
import types
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from anchor_jax.core.errors import UserError
from anchor_jax.data.sources import split_records
from anchor_jax.files.manifest import LIST
from anchor_jax.store.damage import Outcome, outcome_of
from anchor_jax.store.workdir import METRIC, VALIDATION, read_weights
from anchor_jax.training import checkpoint
from anchor_jax.training.batches import evenly_spaced
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.step import State

LOSSES = {1: 3.0, 2: 1.0, 3: float("nan"), 4: 4.0, 5: 2.0}


def state(step):
  return State(
    jnp.int32(step),
    {"vae": jnp.full(3, step, jnp.float32)},
    {"count": jnp.int32(step)},
    None,
    jnp.int32(0),
    jnp.int32(0),
  )


@pytest.fixture
def folder(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step, loss in LOSSES.items():
      checkpoints.save(step, state(step), {"position": step})
      checkpoints.judge(step, loss)
  return tmp_path


def test_the_newest_and_the_best_stay(folder):
  assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir()) == [2, 4, 5]
  assert read_weights(folder)[1] == 5
  assert read_weights(folder, step="best")[1] == 2
  assert float(read_weights(folder, step="4")[0]["vae"][0]) == 4


def test_the_best_is_known_after_a_restart_and_for_checkpoints_of_earlier_versions(folder, caplog):
  """Earlier versions stored the loss in the checkpoint, which could then only be written after validation."""
  with Checkpoints(folder, keep=1) as checkpoints:
    checkpoints.save(6, state(6), {"position": 6})
    checkpoints.judge(6, 3.5)
  assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir()) == [2, 6]
  assert json.loads((folder / VALIDATION).read_text()) == {"2": 1.0, "6": 3.5}
  (folder / VALIDATION).write_text("{")
  with pytest.raises(UserError, match="has a validation loss"):
    read_weights(folder, step="best")
  assert "validation.json can't be read" in caplog.text
  (folder / VALIDATION).unlink()
  with ocp.training.Checkpointer(str(folder / "checkpoints")) as manager:
    manager.save_checkpointables(7, {"state": dataclasses.asdict(state(7))}, force=True, metrics={METRIC: 0.5})
  assert read_weights(folder, step="best")[1] == 7
  with Checkpoints(folder, keep=1) as checkpoints:
    checkpoints.save(8, state(8), {"position": 8})
    checkpoints.judge(8, 0.7)
  assert {int(path.name) for path in (folder / "checkpoints").iterdir()} == {7, 8}


def test_a_new_run_in_the_folder_forgets_earlier_losses(folder):
  for path in (folder / "checkpoints").iterdir():
    shutil.rmtree(path)
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(1, state(1), {"position": 1})
    checkpoints.judge(1, 9.0)
  assert json.loads((folder / VALIDATION).read_text()) == {"1": 9.0}


def test_reading_weights_opens_nothing_else(folder, monkeypatch):
  """Reading shapes would open every array, also those of the optimizer, and take most of the time."""
  monkeypatch.setattr(ocp, "checkpointables_metadata", lambda path: pytest.fail("read the shapes of all arrays"))
  weights, step = read_weights(folder)
  assert step == 5 and float(weights["vae"][0]) == 5 and isinstance(weights["vae"], np.ndarray)
  (folder / "checkpoints" / "5" / "state" / "_METADATA").write_bytes(b"\xff")  # damaged: the one before is read
  assert read_weights(folder)[1] == 4


def test_a_missing_checkpoint_is_refused(folder, tmp_path):
  with pytest.raises(UserError, match=r"no checkpoint of step 3: choose one of \[5, 4, 2\]"):
    read_weights(folder, step="3")
  with Checkpoints(tmp_path / "blind") as checkpoints:
    checkpoints.save(1, state(1), {"position": 1})
  with pytest.raises(UserError, match=r"--config\.data\.validation=N"):
    read_weights(tmp_path / "blind", step="best")


def test_another_run_s_checkpoints_are_refused_and_not_replaced(folder):
  """A state of other settings must not overwrite a trained person."""
  other = state(0)
  other = State(other.step, {"lora": other.weights["vae"]}, other.optimizer, None, other.skipped, other.skipped)
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(UserError, match=r"other settings .* choose another --workdir"),
  ):
    checkpoints.restore(other, {"position": 0})
  assert read_weights(folder)[1] == 5


def test_a_temporary_file_system_error_deletes_nothing(folder, monkeypatch):
  """It must not count as damage, which would delete the newest checkpoint."""
  load = ocp.load_checkpointables

  def failing(path, *arguments):
    if path.endswith("/5"):
      try:
        raise OSError(errno.EIO, "Input/output error")
      except OSError as error:
        raise KeyError("Failed to load checkpointable: state") from error  # as orbax does
    return load(path, *arguments)

  with Checkpoints(folder) as checkpoints:
    monkeypatch.setattr(ocp, "load_checkpointables", failing)
    with pytest.raises(
      UserError, match=r"checkpoints/5 can't be read now \(.*Input/output error\); nothing was deleted"
    ):
      checkpoints.restore(state(0), {"position": 0})
    with pytest.raises(UserError, match="Input/output error"):
      read_weights(folder)
    monkeypatch.undo()
    restored, position = checkpoints.restore(state(0), {"position": 0})
  assert int(restored.step) == 5 and position == {"position": 5}
  assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir()) == [2, 4, 5]


@pytest.mark.parametrize("name", ["state/_METADATA", "state/d", "loader"])
@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_recognized(folder, name, harm):
  place = folder / "checkpoints/5" / name
  files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
  for path in files:
    if harm == "missing":
      path.unlink()
    else:
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with Checkpoints(folder) as checkpoints:
    assert int(checkpoints.restore(state(0), {"position": 0})[0].step) == 4
    assert checkpoints.newest() == 4  # so that step 5 can be written again


def test_a_flipped_byte_is_detected(folder, caplog):
  """Orbax stores no checksums of arrays."""
  largest = max((folder / "checkpoints/5").rglob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  assert read_weights(folder)[1] == 4
  assert f"checkpoint 5 can't be read (state/ocdbt.process_0/d/{largest.name} has changed)" in caplog.text
  with pytest.raises(UserError, match=r"checkpoint 5 .* has changed"):
    read_weights(folder, step="5")
  with Checkpoints(folder) as checkpoints:
    assert int(checkpoints.restore(state(0), {"position": 0})[0].step) == 4
    checkpoints.save(5, state(5), {"position": 5})  # orbax removes the damaged checkpoint and its list
  assert read_weights(folder)[1] == 5
  (folder / "checkpoints/5" / LIST).unlink()  # as earlier versions wrote it
  assert read_weights(folder)[1] == 5


def test_all_processes_skip_what_one_finds_damaged(folder, monkeypatch):
  """The other process can't read step 5, and lists a step that this process does not."""
  other_outcomes = iter([[[Outcome.DAMAGED]], [[Outcome.RESTORED]]])
  own_outcomes = []
  monkeypatch.setattr(checkpoint, "_several_processes", lambda: True)
  monkeypatch.setattr(
    multihost_utils,
    "process_allgather",
    lambda own: own_outcomes.append(int(own)) or np.concatenate([[[own]], next(other_outcomes)]),
  )
  first_process = iter([np.int32(2), np.array([5, 4], np.int32)])
  monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda own: next(first_process))
  checkpoints = Checkpoints.__new__(Checkpoints)
  checkpoints._folder = folder / "checkpoints"
  deleted = []
  infos = [types.SimpleNamespace(step=step) for step in (2, 4)]
  checkpoints._manager = types.SimpleNamespace(checkpoints=infos, delete=deleted.append)
  restored, _ = checkpoints.restore(state(0), {"position": 0})
  assert int(restored.step) == 4 and deleted == [5] and own_outcomes == [Outcome.RESTORED, Outcome.RESTORED]


def test_an_error_counts_as_damage_only_with_proof():
  assert outcome_of(ValueError("DATA_LOSS: Error reading")) is Outcome.DAMAGED
  assert outcome_of(FileNotFoundError("_METADATA")) is Outcome.DAMAGED
  for error in (OSError(errno.ESTALE, "Stale file handle"), PermissionError(), MemoryError(), RuntimeError("no idea")):
    assert outcome_of(error) is Outcome.UNREADABLE
  assert outcome_of(ValueError("UNAVAILABLE: Error reading")) is Outcome.UNREADABLE
  both = ValueError("NOT_FOUND: zarr.json")
  both.__cause__ = OSError(errno.EIO, "Input/output error")
  assert outcome_of(both) is Outcome.UNREADABLE


def test_only_the_requested_weights_are_read_and_as_numpy(tmp_path):
  """Neither the optimizer's state nor the other weights are restored, and nothing is put on a device."""
  weights, number = {"vae": jnp.arange(4.0)}, jnp.int32(3)
  content = State(number, weights, {"mu": jnp.zeros(4)}, jax.tree.map(lambda x: -x, weights), number, number)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(3, content, {"position": 3})
  requested = []
  with unittest.mock.patch.object(
    ocp,
    "load_checkpointables",
    side_effect=lambda path, like, load=ocp.load_checkpointables: requested.append(like) or load(path, like),
  ):
    averaged, step = read_weights(tmp_path)
    raw, _ = read_weights(tmp_path, averaged=False)
  assert [sorted(like["state"]) for like in requested] == [["ema", "step"], ["step", "weights"]] and step == 3
  assert type(averaged["vae"]) is type(raw["vae"]) is np.ndarray
  np.testing.assert_array_equal(averaged["vae"], -np.arange(4.0))
  np.testing.assert_array_equal(raw["vae"], np.arange(4.0))


def test_the_last_records_are_held_out_but_at_most_a_fifth():
  trained_on, held_out = split_records(100, 8)
  assert trained_on.tolist() == list(range(92)) and held_out.tolist() == list(range(92, 100))
  assert [len(part) for part in split_records(20, 32)] == [16, 4]
  assert [len(part) for part in split_records(3, 1)] == [3, 0]
  assert (
    evenly_spaced(held_out, 3).tolist() == [92, 95, 99] and evenly_spaced(held_out, 20).tolist() == held_out.tolist()
  )
