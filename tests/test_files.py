import errno

import pytest

from anchor_jax.errors import UserError
from anchor_jax.files import new_file, new_folder, partial_path


def test_a_file_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / "deep" / "note.txt"
  with new_file(path) as partial:
    assert partial == partial_path(path) == tmp_path / "deep" / "note.partial.txt"
    partial.write_text("first")
    assert not path.exists()
  with pytest.raises(RuntimeError), new_file(path) as partial:
    partial.write_text("second")
    raise RuntimeError
  assert path.read_text() == "first" and len(list(path.parent.iterdir())) == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path):
  path = tmp_path / "things"
  for name in ("a", "b"):
    with new_folder(path) as partial:
      (partial / name).write_text(name)
  assert [p.name for p in path.iterdir()] == ["b"]
  with pytest.raises(RuntimeError), new_folder(path) as partial:
    (partial / "c").write_text("c")
    raise RuntimeError
  assert [p.name for p in path.iterdir()] == ["b"] and len(list(tmp_path.iterdir())) == 1


def test_what_the_system_refuses_takes_one_line(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match="cannot write"), new_file(tmp_path / "file" / "x"):
    pass
  with pytest.raises(UserError, match="is a folder"), new_file(tmp_path):
    pass
  with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file"):
    pass
  with pytest.raises(UserError, match="disk is full"), new_file(tmp_path / "big"):
    raise OSError(errno.ENOSPC, "No space left on device")
  assert [p.name for p in tmp_path.iterdir()] == ["file"]
