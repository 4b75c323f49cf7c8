"""One run per part, and none in the folder of a saved person."""

import jax
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import lock_path
from anchor_jax.training.checkpoint import only_run_in


def test_a_saved_person_is_not_a_workdir(tmp_path):
  for name in ("step.json", "lora.safetensors"):
    folder = tmp_path / name / "body"
    folder.mkdir(parents=True)
    (folder / name).write_text("{}")
    with (
      pytest.raises(UserError, match=r"saved person, not to a run: choose another --workdir, .* --config\.init="),
      only_run_in(folder),
    ):
      pass


def test_only_the_first_process_locks(tmp_path, monkeypatch):
  with only_run_in(tmp_path / "ana/body"):
    assert lock_path(tmp_path / "ana/body").exists()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with only_run_in(tmp_path / "ana/body"):
      pass
  assert [path.name for path in tmp_path.rglob("*")] == ["ana"]
