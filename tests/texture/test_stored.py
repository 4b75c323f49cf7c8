import dataclasses
import json

import numpy as np
import pytest
from globes import CHARTS, globe_film
from people import make_measures
from safetensors.numpy import save_file

from anchor_jax.core.errors import UserError
from anchor_jax.texture import stored
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import gather
from anchor_jax.texture.sheet import texture_sheet
from tests.helpers.strange import strange_files


@pytest.fixture(scope="module")
def texture():
  film = globe_film(8, 24)
  return gather(film.__getitem__, plan_blocks([0] * 8, 4), CHARTS).texture()


def test_written_and_read_is_equal(tmp_path, texture):
  file = tmp_path / "ana.safetensors"
  stored.write_texture(file, texture)
  read = stored.read_texture(file, CHARTS)
  for field in dataclasses.fields(texture):
    assert np.array_equal(getattr(texture, field.name), getattr(read, field.name))
  measured = dataclasses.replace(texture, measures=make_measures())
  stored.write_texture(file, measured)
  assert read.measures is None and stored.read_texture(file, CHARTS).measures == measured.measures
  assert [path.name for path in tmp_path.iterdir()] == ["ana.safetensors"]


def test_files_of_earlier_versions_without_masks_are_read(tmp_path, texture):
  file = tmp_path / "ana.safetensors"
  assert texture.key_masks.shape == texture.key_frames.shape[:3] and texture.key_masks.any()
  stored.write_texture(file, dataclasses.replace(texture, key_masks=None))
  assert stored.read_texture(file, CHARTS).key_masks is None


def one_line(file, charts=None):
  with pytest.raises(UserError) as refused:
    stored.read_texture(file, charts)
  message = str(refused.value)
  assert str(file) in message and "\n" not in message and len(message) < 300
  return message


def test_equal_textures_are_equal_bytes(tmp_path, texture):
  measured, written = dataclasses.replace(texture, measures=make_measures()), set()
  for number in range(12):  # the library alone would change the order of the metadata nearly every time
    stored.write_texture(tmp_path / f"{number}.safetensors", measured)
    written.add((tmp_path / f"{number}.safetensors").read_bytes())
  assert len(written) == 1


def test_a_flipped_bit_is_detected(tmp_path, texture):
  file = tmp_path / "ana.safetensors"
  stored.write_texture(file, dataclasses.replace(texture, measures=make_measures()))
  content = file.read_bytes()
  start = 8 + int.from_bytes(content[:8], "little")
  for place in [*np.linspace(start, len(content) - 1, 20).astype(int), content.index(b"measures") + 40]:
    damaged = bytearray(content)
    damaged[place] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged"):
      stored.read_texture(file, CHARTS)


def test_paths_that_are_no_files_are_reported_in_one_line(tmp_path):
  for path, message in strange_files(tmp_path / "odd", ".safetensors").items():
    with pytest.raises(UserError, match=message):
      stored.read_texture(path, CHARTS)


def test_a_missing_file_and_other_charts(tmp_path, texture):
  file = tmp_path / "ana.safetensors"
  assert "there is no" in one_line(file)
  stored.write_texture(file, texture)
  assert "another version" in one_line(file, (*CHARTS, ("tail", False)))


def spoil(name, value):
  def change(arrays, metadata):
    (metadata if isinstance(value, str) else arrays)[name] = value

  return change


@pytest.mark.parametrize(
  "change",
  [
    spoil("format", "2\n" * 1000),
    spoil("charts", "no json"),
    spoil("measures", "no json"),
    spoil("measures", "{}"),
    spoil("measures", "[1]"),
    spoil("charts", json.dumps([["none", 1]])),
    spoil("charts", json.dumps([["none", False]] * 300)),
    spoil("charts", "[" * 100_000),
    spoil("atlas", np.zeros((3, 64, 64, 3), np.float32)),
    spoil("atlas", np.zeros((2, 64, 64, 3), np.uint8)),
    spoil("coverage", np.zeros((3, 64), np.uint8)),
    spoil("plate", np.zeros((0, 24, 3), np.uint8)),
    spoil("plate", np.zeros((24, 23, 3), np.uint8)),
    spoil("key_surfaces", np.full((3, 24, 24, 3), 3, np.uint8)),
    spoil("key_frames", np.zeros(3, np.uint8)),
    spoil("key_masks", np.zeros((3, 24, 24, 3), np.uint8)),
    spoil("more", np.zeros(3, np.uint8)),
    lambda arrays, metadata: arrays.pop("spread"),
    lambda arrays, metadata: metadata.clear(),
  ],
)
def test_a_malformed_file_is_reported_in_one_line(tmp_path, texture, change):
  file = tmp_path / "ana.safetensors"
  arrays = {name: np.ascontiguousarray(getattr(texture, name)) for name in stored._ARRAYS}
  metadata = {"format": stored.FORMAT, "charts": json.dumps(texture.charts)}
  change(arrays, metadata)
  save_file(arrays, file, metadata=metadata)
  one_line(file)


@pytest.mark.parametrize("data", [b"", b"PK\3\4 not this", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_a_file_of_another_kind_is_reported_in_one_line(tmp_path, data):
  file = tmp_path / "ana.safetensors"
  file.write_bytes(data)
  one_line(file)


def test_a_truncated_file_is_reported_in_one_line(tmp_path, texture):
  file = tmp_path / "ana.safetensors"
  stored.write_texture(file, texture)
  data = file.read_bytes()
  for length in (4, 100, len(data) // 2, len(data) - 1):
    file.write_bytes(data[:length])
    one_line(file)


def test_the_sheet_shows_everything_seen(texture):
  sheet = texture_sheet(texture, side=64)
  assert sheet.dtype == np.uint8 and (sheet[:64, 64 : 4 * 64].std(axis=(0, 1)) > 5).all()
  empty = dataclasses.replace(texture, coverage=np.zeros_like(texture.coverage))
  assert texture_sheet(empty, side=64).shape == (64, 64 * 4, 3)
