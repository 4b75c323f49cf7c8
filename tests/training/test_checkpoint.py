"""Which checkpoints stay and which is read; which records they are judged by."""

import jax.numpy as jnp
import pytest

from anchor_jax.errors import UserError
from anchor_jax.store.workdir import read_weights
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.state import State
from anchor_jax.training.validation import evenly_spaced, split_records

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
      checkpoints.save(step, state(step), {"position": step}, loss)
      checkpoints.wait()
  return tmp_path


def test_the_newest_and_the_best_stay(folder):
  assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir()) == [2, 4, 5]
  assert read_weights(folder)[1] == 5
  assert read_weights(folder, step="best")[1] == 2
  assert float(read_weights(folder, step="4")[0]["vae"][0]) == 4


def test_a_checkpoint_that_is_not_there_is_refused(folder, tmp_path):
  with pytest.raises(UserError, match=r"no checkpoint of step 3: there are \[5, 4, 2\]"):
    read_weights(folder, step="3")
  with Checkpoints(tmp_path / "blind") as checkpoints:
    checkpoints.save(1, state(1), {"position": 1})
  with pytest.raises(UserError, match=r"--config\.data\.validation=N"):
    read_weights(tmp_path / "blind", step="best")


def test_another_run_s_checkpoints_are_refused_and_not_replaced(folder):
  """Other settings make another state: it must not begin anew over a trained person."""
  other = state(0)
  other = State(other.step, {"lora": other.weights["vae"]}, other.optimizer, None, other.skipped, other.skipped)
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(UserError, match=r"other settings .* choose another --workdir"),
  ):
    checkpoints.restore(other, {"position": 0})
  assert read_weights(folder)[1] == 5


def test_the_last_records_are_held_out_but_a_short_video_keeps_most():
  learned, held_out = split_records(100, 8)
  assert learned.tolist() == list(range(92)) and held_out.tolist() == list(range(92, 100))
  assert [len(part) for part in split_records(20, 32)] == [16, 4]
  assert [len(part) for part in split_records(3, 1)] == [3, 0]
  assert (
    evenly_spaced(held_out, 3).tolist() == [92, 95, 99] and evenly_spaced(held_out, 20).tolist() == held_out.tolist()
  )
