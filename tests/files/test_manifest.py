"""Lists of files: which changes they find, and how much of large files they read."""

import json

import pytest

from anchor_jax.files.manifest import LIST, files_in, find_damage, read_list, write_list


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "vae").mkdir()
  (tmp_path / "vae/config.json").write_text('{"layers": 16}')
  (tmp_path / "large").write_bytes(bytes(range(256)) * 2**17)  # 32 MiB
  return tmp_path


def test_all_kinds_of_damage_are_found_and_unlisted_files_ignored(folder):
  assert find_damage(folder) == ""  # without a list nothing is known
  write_list(folder, "base")
  assert list(files_in(folder)) == [LIST, "large", "vae/config.json"]
  (folder / "notes.txt").write_text("mine")
  assert find_damage(folder) == "" and read_list(folder)["kind"] == "base"
  (folder / "vae/config.json").write_text('{"layers": 32}')
  assert find_damage(folder) == "vae/config.json has changed"
  assert [find_damage(folder, (share, 2)) for share in range(2)] == ["", "vae/config.json has changed"]
  (folder / "vae/config.json").write_text('{"layers": 1}')
  assert find_damage(folder) == "vae/config.json has 13 bytes instead of 14"
  (folder / "vae/config.json").unlink()
  assert find_damage(folder) == "vae/config.json is missing"
  for text in ("{", "[]", json.dumps({"format": "anchor_jax files 1", "whole": True, "files": {"a": [1]}})):
    (folder / LIST).write_text(text)
    assert find_damage(folder) == f"{LIST} is damaged"


@pytest.mark.parametrize("every_byte", [True, False])
def test_a_list_can_cover_every_byte(folder, every_byte):
  write_list(folder, "checkpoint", every_byte)
  data = bytearray((folder / "large").read_bytes())
  data[3 * 2**19] ^= 1  # between the pieces
  (folder / "large").write_bytes(data)
  assert bool(find_damage(folder)) == every_byte
  data[: 2**20] = bytes(2**20)
  (folder / "large").write_bytes(data)
  assert find_damage(folder) == "large has changed"
