"""A person's texture and its file, in the safetensors format.

The metadata holds `format`, `charts` (a JSON list of [name, periodic in u]), the body `measures` as JSON where known,
where the `room` lies if the film's camera moves, and the `crc32` of all contents. Reading checks everything; nothing in
the file is executable.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.files.inputs import regular_file, strict_json
from anchor_jax.files.outputs import new_file
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.texture.texels import LEVELS, TEXELS

FORMAT = "1"
SEEN, GUESSED = 255, 64  # coverage of the background plate where the film shows the room, and where it is guessed
_MAX_SIDE = 4096  # pixels
_MAX_KEY_FRAMES = 64


@dataclasses.dataclass(frozen=True)
class Room:
  """What a camera that moves shows of the room, as one picture; see texture/background/plate.py.

  Attributes:
    pixels: RGB and coverage, 255 where the room was seen, else 0.
    corner: column and row of the background plate's first pixel in it; the plate is a part of it.
    key_cameras: the camera of each key frame (texture/background/camera_path.py).
  """

  pixels: UInt8[NdArray, "h w 4"]
  corner: tuple[int, int]
  key_cameras: Float[NdArray, "K 4"]


@dataclasses.dataclass(frozen=True)
class Texture:
  """What one film shows of a person and the room, as uint8 arrays.

  Attributes:
    charts: name and whether u is periodic, for each chart by number; the first is "none".
    atlas: RGB of each chart, rows along v and columns along u; 0 where `coverage` is 0.
    coverage: 255 where the film shows the texel; 1/2, 1/4, 1/8 of that where its color comes from nearby texels;
      less where it comes from farther away (in films with soft person masks).
    spread: root mean square deviation of the film's colors from `atlas`, gray levels; 0 where nothing was seen.
    plate: the background plate; 0 where `plate_coverage` is 0.
    plate_coverage: `SEEN` where the room was seen. Elsewhere 0, or `GUESSED` where the plate continues what was seen
      around (in films with soft person masks).
    key_frames: K frames of the film, the most useful first; as large as the plate unless it was reframed.
    key_surfaces: their surface maps; chart 0 away from the person.
    key_masks: 255 on the person, hair and clothes included; None in files of earlier versions.
    measures: body measures in units of the picture's side; None where unknown, as in files of earlier versions.
    room: if the film's camera moves; None if it is still, then the plate is all there is of the room.
  """

  charts: tuple[tuple[str, bool], ...]
  atlas: UInt8[NdArray, "charts texels texels 3"]
  coverage: UInt8[NdArray, "charts texels texels"]
  spread: UInt8[NdArray, "charts texels texels"]
  plate: UInt8[NdArray, "H W 3"]
  plate_coverage: UInt8[NdArray, "H W"]
  key_frames: UInt8[NdArray, "K h w 3"]
  key_surfaces: UInt8[NdArray, "K h w 3"]
  key_masks: UInt8[NdArray, "K h w"] | None = None
  measures: BodyMeasures | None = None
  room: Room | None = None


_OPTIONAL = ("key_masks",)
_ARRAYS = tuple(
  field.name for field in dataclasses.fields(Texture) if field.name not in ("charts", "measures", "room", *_OPTIONAL)
)


def write_texture(path: str | os.PathLike, texture: Texture) -> None:
  """Writes a texture's file atomically.

  Raises:
    UserError: `path` cannot be written.
  """
  names = [name for name in (*_ARRAYS, *_OPTIONAL) if getattr(texture, name) is not None]
  arrays = {name: np.ascontiguousarray(getattr(texture, name)) for name in names}
  metadata = {"format": FORMAT, "charts": json.dumps(texture.charts)}
  if texture.measures is not None:
    metadata["measures"] = json.dumps(texture.measures.to_json())
  if texture.room is not None:
    arrays["room"] = np.ascontiguousarray(texture.room.pixels)
    metadata["room"] = json.dumps({"corner": texture.room.corner, "key_cameras": texture.room.key_cameras.tolist()})
  metadata["crc32"] = _checksum(arrays, metadata)
  with new_file(path) as partial:
    partial.write_bytes(ordered(save(arrays, metadata)))


def _checksum(arrays: Mapping[str, NdArray], metadata: Mapping[str, str]) -> str:
  """CRC-32 of a file's contents; files of earlier versions have none."""
  room = [metadata["room"]] if "room" in metadata else []
  return checksum(arrays, [metadata.get("charts"), metadata.get("measures"), *room])


def checksum(arrays: Mapping[str, NdArray], texts: Sequence[str | None]) -> str:
  """CRC-32 of arrays and texts."""
  value = zlib.crc32(json.dumps(texts).encode())
  for name in sorted(arrays):
    value = zlib.crc32(np.ascontiguousarray(arrays[name]).data, zlib.crc32(name.encode(), value))
  return f"{value:08x}"


def ordered(data: bytes) -> bytes:
  """A safetensors file with its header sorted, so that equal textures give equal bytes.

  The library writes metadata in an order that changes from call to call.
  """
  end = 8 + int.from_bytes(data[:8], "little")
  header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
  header += b" " * (-len(header) % 8)
  return len(header).to_bytes(8, "little") + header + data[end:]


def read_texture(path: str | os.PathLike, charts: Sequence[tuple[str, bool]] | None = None) -> Texture:
  """Reads a file that `write_texture` wrote.

  Args:
    path: the file.
    charts: the charts of the surface maps that it will be used with; None accepts any.

  Raises:
    UserError: the file is missing, not a texture, damaged, of another format, or has other charts.
  """
  regular_file(path, "texture")
  try:
    with safe_open(path, "numpy") as opened:
      metadata = opened.metadata() or {}
      if metadata.get("format") != FORMAT:
        raise UserError(
          f"{path} has format {metadata.get('format', 'unknown')[:20]!r}, this version reads {FORMAT!r}: prepare again"
        )
      found = _read_charts(metadata.get("charts", ""))
      measures = BodyMeasures.from_json(strict_json(metadata["measures"])) if "measures" in metadata else None
      slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
      shapes = {name: tuple(entry.get_shape()) for name, entry in slices.items()}
      if any(entry.get_dtype() != "U8" for entry in slices.values()) or not _shapes_fit(shapes, len(found)):
        raise ValueError("arrays of the wrong kind or size")
      arrays = {name: opened.get_tensor(name) for name in shapes}
    if metadata.get("crc32", found_sum := _checksum(arrays, metadata)) != found_sum:
      raise ValueError("not as it was written")
    if arrays["key_surfaces"][..., 0].max(initial=0) >= len(found):
      raise ValueError("unknown charts")
    room = _read_room(metadata, arrays)
  except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError):
    raise UserError(f"{path} is not a texture or is damaged: prepare the person's film again") from None
  if charts is not None and found != tuple((str(name), bool(periodic)) for name, periodic in charts):
    raise UserError(f"{path} has the surface charts of another version: prepare the person's film again")
  return Texture(charts=found, measures=measures, room=room, **arrays)


def _read_room(metadata: Mapping[str, str], arrays: dict[str, NdArray]) -> Room | None:
  """The room of a file, taken out of its arrays; None if it has none."""
  pixels = arrays.pop("room", None)
  if pixels is None:
    return None
  place = strict_json(metadata["room"])
  (left, top), cameras = place["corner"], np.asarray(place["key_cameras"], np.float64).reshape(-1, 4)
  height, width = arrays["plate"].shape[:2]
  inside = 0 <= left <= pixels.shape[1] - width and 0 <= top <= pixels.shape[0] - height
  if not inside or len(cameras) != len(arrays["key_frames"]) or not np.isfinite(cameras).all():
    raise ValueError("a room that does not fit the plate")
  return Room(pixels, (int(left), int(top)), cameras)


def _read_charts(text: str) -> tuple[tuple[str, bool], ...]:
  charts = strict_json(text)
  if not isinstance(charts, list) or not 1 <= len(charts) <= LEVELS:
    raise ValueError("no list of charts")
  for entry in charts:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], bool)):
      raise ValueError("not a chart")
  return tuple((name, periodic) for name, periodic in charts)


def _shapes_fit(shapes: dict[str, tuple[int, ...]], charts: int) -> bool:
  if set(shapes) - {*_OPTIONAL, "room"} != set(_ARRAYS):
    return False
  texels = (charts, TEXELS, TEXELS)
  plate, keys = shapes["plate"], shapes["key_frames"]
  if len(plate) != 3 or len(keys) != 4 or max(*plate, *keys[1:]) > _MAX_SIDE or keys[0] > _MAX_KEY_FRAMES:
    return False
  expected = dict(
    atlas=(*texels, 3),
    coverage=texels,
    spread=texels,
    plate=(*plate[:2], 3),
    plate_coverage=plate[:2],
    key_frames=(*keys[:3], 3),
    key_surfaces=(*keys[:3], 3),
    key_masks=keys[:3],
    room=(*shapes.get("room", ())[:2], 4),
  )
  if max(shapes.get("room", (0,))) > 2 * _MAX_SIDE:
    return False
  expected = {name: shape for name, shape in expected.items() if name in shapes}
  return shapes == expected and min(plate[:2]) > 0
