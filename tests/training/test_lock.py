"""One run a part, and none over a person that was saved."""

import jax
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import lock_path
from anchor_jax.training.checkpoint import only_run_in


def test_a_saved_person_is_no_workdir(tmp_path):
  for name in ("step.json", "lora.safetensors"):
    folder = tmp_path / name / "body"
    folder.mkdir(parents=True)
    (folder / name).write_text("{}")
    with (
      pytest.raises(UserError, match=r"was saved: choose another --workdir, .* --config\.init="),
      only_run_in(folder),
    ):
      pass


def test_the_first_process_locks_and_the_others_do_not(tmp_path, monkeypatch):
  with only_run_in(tmp_path / "ana/body"):
    assert lock_path(tmp_path / "ana/body").exists()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with only_run_in(tmp_path / "ana/body"):
      pass
  assert [path.name for path in tmp_path.rglob("*")] == ["ana"]
