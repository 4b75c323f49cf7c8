import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from anchor_jax.core.errors import UserError
from anchor_jax.video.picture import read_picture


def _chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_png_claiming(path, width, height):
  """Writes a PNG file of a few bytes whose header claims this size; returns its path."""
  header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(9999))) + _chunk(b"IEND", b""))
  return path


def test_reads_colors_and_gray_from_any_path(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
  path = tmp_path / os.fsdecode(b"odd\xff.png")
  path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
  np.testing.assert_array_equal(read_picture(path), picture)
  gray = cv2.imencode(".png", picture[..., 0])[1].tobytes()
  (tmp_path / "gray.png").write_bytes(gray)
  np.testing.assert_array_equal(read_picture(str(tmp_path / "gray.png"))[..., 2], picture[..., 0])


@pytest.mark.parametrize("width, height", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (10_001, 10_000)])
def test_a_decompression_bomb_is_a_one_line_error(tmp_path, width, height):
  with pytest.raises(UserError, match="million pixels") as error:
    read_picture(_write_png_claiming(tmp_path / "bomb.png", width, height))
  assert "\n" not in str(error.value)


def test_files_that_are_not_pictures_are_refused(tmp_path):
  (tmp_path / "text.png").write_text("no picture")
  (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00")
  (tmp_path / "cut.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[:40])
  for name in ("text.png", "cut.png", "cut.jpg", "nothing.png", ".", "n" * 300):
    with pytest.raises(UserError, match=r"not a readable picture|no picture|is a folder"):
      read_picture(tmp_path / name)
  with pytest.raises(UserError, match="not a readable picture"):
    read_picture(_write_png_claiming(tmp_path / "nothing_wide.png", 0, 5))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_in_all_exif_orientations(tmp_path, kind, orientation):
  y, x = np.indices((32, 48))
  picture, exif = Image.fromarray(np.stack([40 + 4 * x, 40 + 6 * y, 0 * x], -1).astype(np.uint8)), Image.Exif()
  exif[0x112] = orientation
  path = tmp_path / f"picture.{kind}"
  picture.save(path, exif=exif, quality=95)
  shown = read_picture(path)
  with Image.open(path) as stored:
    expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
  assert shown.shape == expected.shape and np.abs(shown.astype(int) - expected).mean() < 4
