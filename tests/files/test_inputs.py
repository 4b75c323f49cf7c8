import dataclasses
import socket
from typing import Annotated

import pytest

from anchor_jax.core.errors import UserError, one_line, printable
from anchor_jax.core.values import Within
from anchor_jax.files.fields import read_fields
from anchor_jax.files.inputs import open_input, parse_json, read_bytes, read_json, regular_file, sorted_by_number
from tests.helpers.strange import strange_files


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
  (tmp_path / "film.mp4").write_bytes(b"film")
  (tmp_path / "soft.mp4").symlink_to("film.mp4")
  for name in ("film.mp4", "soft.mp4"):
    assert regular_file(tmp_path / name) == tmp_path / name
    assert read_bytes(tmp_path / name) == b"film"
  for path, message in strange_files(tmp_path).items():
    for read in (regular_file, open_input, read_bytes, read_json):
      with pytest.raises(UserError, match=message) as error:
        read(path)
      assert "\n" not in str(error.value) and len(str(error.value)) < 400
  with pytest.raises(UserError, match=r'there is no video .*Did you mean "film.mp4"'):
    regular_file(tmp_path / "flim.mp4", "video")
  with socket.socket(socket.AF_UNIX) as listening:
    monkeypatch.chdir(tmp_path)  # names of sockets have few characters
    listening.bind("socket")
    with pytest.raises(UserError, match="is a socket"):
      open_input("socket")


def test_too_large_files_are_not_read(tmp_path):
  with (tmp_path / "meta.json").open("wb") as file:
    file.truncate(2**40)  # sparse: takes no disk space
  with pytest.raises(UserError, match="1099511627776 bytes"):
    read_json(tmp_path / "meta.json")


@pytest.mark.parametrize(
  "text, message",
  [
    ("", "Expecting value"),
    ("{", ""),
    ("[NaN]", "NaN is not a number"),
    ("[-Infinity]", "-Infinity is not a number"),
    ("[1e999]", "1e999 is too large"),
    ("[" * 100_000, ""),
    (b"\xff\xfe\x00", ""),
    ("9" * 5000, ""),
  ],
)
def test_json_is_parsed_strictly(text, message):
  with pytest.raises(UserError, match=rf"step.json is damaged \(.*{message}.*\): train again") as error:
    parse_json(text, "step.json", "train again")
  assert "\n" not in str(error.value) and len(str(error.value)) < 300


@dataclasses.dataclass(frozen=True)
class _Place:
  x: float
  y: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Facts:
  frames: Annotated[int, Within(1, 10**9)]
  pair: tuple[int, int] | None = None
  places: tuple[_Place, ...] = ()
  files: dict[str, Annotated[int, Within(0, 2**50)]] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
  "text, message",
  [
    ("[]", "must be a group"),
    ("{}", "frames is missing"),
    ('{"frames": 1.5}', "frames is 1.5: expected int"),
    ('{"frames": true}', "frames is True: expected int"),
    ('{"frames": 0}', "frames is 0: it must be 1 to 1e\\+09"),
    ('{"frames": 1e300}', "expected int"),
    ('{"frames": 3, "pair": [1]}', "pair is"),
    ('{"frames": 3, "pair": [1, "2"]}', "pair is '2': expected int"),
    ('{"frames": 3, "places": [{"y": 1}]}', "places.x is missing"),
    ('{"frames": 3, "files": {"a": -1}}', "files.a is -1"),
    ('{"frames": 3, "files": [1]}', "files is"),
    (f'{{"frames": 3, "places": [{{"x": 1{"0" * 400}}}]}}', "x is a number of 401 digits"),
    (f'{{"frames": "{"x" * 9000}"}}', "expected int"),
  ],
)
def test_every_field_of_a_file_is_checked(tmp_path, text, message):
  (tmp_path / "meta.json").write_text(text)
  with pytest.raises(UserError, match=f"is damaged .meta.json.*{message}.*: prepare it again$") as error:
    read_fields(tmp_path / "meta.json", _Facts, remedy="prepare it again")
  assert len(str(error.value)) < 500


def test_unknown_fields_are_ignored(tmp_path):
  (tmp_path / "meta.json").write_text('{"frames": 3, "pair": [1, 2], "places": [{"x": 1}], "tempo": NaN}')
  found = read_fields(tmp_path / "meta.json", _Facts, nan=True)
  assert found == _Facts(3, (1, 2), (_Place(1.0),))


def test_numbered_files_are_sorted_by_number(tmp_path):
  names = ["0_keypoints.json", "2_keypoints.json", "10_keypoints.json", "100_keypoints.json", "a1b2.json"]
  names += ["a1b10.json", "b.json"]
  assert [path.name for path in sorted_by_number(tmp_path / name for name in sorted(names))] == names


def test_names_in_messages_are_printable():
  name = "a\x1b[2J\r\nb\x07\x9b\u202e\udcff\u00a0é漢"
  assert printable(name) == "a\\x1b[2J\\r\\nb\\x07\\x9b\\u202e\\udcff\u00a0é漢"
  assert str(UserError(f"there is no video {name}")) == f"there is no video {printable(name)}"
  assert one_line(ValueError(name)).isprintable()
