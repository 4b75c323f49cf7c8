"""Which parts of a person a folder holds, and what is read of them."""

import shutil
import struct
import zlib

import numpy as np
import pytest

from anchor_jax.errors import UserError
from anchor_jax.motion.picture import read_picture
from anchor_jax.store.weights import CheckpointChoice, parts_in, read_part, shipped


def test_the_shipped_weights_are_a_person_without_a_run():
  assert parts_in("studio") == ("vae", "body", "head")
  head = read_part("studio", "head")
  assert (head.step, head.appearance) == (0, None) and head.config.part == "head"
  assert head.networks.inpaints and head.config.model.unet.in_channels == 17
  assert not read_part("studio", "body").networks.inpaints
  assert all(type(leaf) is np.ndarray for leaf in head.weights["unet"]["conv_in"].values())


def test_a_folder_of_models_holds_the_parts_whose_models_are_there(tmp_path):
  shutil.copytree(shipped(), tmp_path / "sd")
  shutil.rmtree(tmp_path / "sd" / "head" / "unet")
  shutil.copytree(tmp_path / "sd" / "body" / "unet", tmp_path / "sd" / "unet")
  assert parts_in(tmp_path / "sd") == ("vae", "body")  # the UNet at the top has too few channels for a head
  with pytest.raises(UserError, match="holds no head, it lacks unet"):
    read_part(tmp_path / "sd", "head")
  shutil.rmtree(tmp_path / "sd" / "image_encoder")
  assert parts_in(str(tmp_path / "sd")) == ("vae",)
  with pytest.raises(UserError, match="leave --checkpoint-step"):
    read_part(tmp_path / "sd", "vae", CheckpointChoice(step="3"))
  with pytest.raises(UserError, match="no folder"):
    parts_in(tmp_path / "nobody")
  (tmp_path / "empty").mkdir()
  assert parts_in(tmp_path / "empty") == ()


def png(width, height):
  """A PNG of one colour that claims a size, in a few bytes."""
  chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  rows = zlib.compress(b"\0" * (1 + 3 * width) * min(height, 4))
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
  "content,reason",
  [
    (png(60000, 60000), "pixels: give a smaller picture"),
    (png(4, 4)[:40], "no picture that can be read"),
    (b"\x89PNG\r\n\x1a\n", "no picture that can be read"),
    (b"", "no picture that can be read"),
  ],
  ids=("bomb", "truncated", "header", "empty"),
)
def test_a_damaged_or_hostile_picture_ends_in_one_line(tmp_path, content, reason):
  (tmp_path / "ana.png").write_bytes(content)
  with pytest.raises(UserError, match=reason) as caught:
    read_picture(tmp_path / "ana.png")
  assert "\n" not in str(caught.value)
  (tmp_path / "ana.png").write_bytes(png(4, 4))
  assert read_picture(tmp_path / "ana.png").shape == (4, 4, 3)
