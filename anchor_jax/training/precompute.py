"""What is computed once per record before training: encoded latents and tokens, and looked-up channels.

Encoded records spare the training steps the autoencoder and the frozen image tower. Looked-up channels are what the
pose branch takes besides the pose render: as large as the frames for the body, as large as the face crops for the head.
A record's channels come from the film without the record's own block and its neighbors (texture/blocks.py); otherwise
the network could learn to copy the pixels that it should paint.

Both are stored in blocks in the prepared folder, or in the part's folder of the workdir if the prepared folder is read
only. The folder's name (cache-KEY, conditions-KEY) holds a hash of everything that decides the content: a later run
reuses the folder, and computes missing or damaged blocks again.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from anchor_jax.body.charts import CHARTS
from anchor_jax.body.face_crop import crop_places, face_transform
from anchor_jax.config.run import to_plain
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Int, NdArray, PyTree, UInt8
from anchor_jax.data.encoded import Block, block_count, block_records, read_block, write_block
from anchor_jax.data.identity import hash_files
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import Record, Source, read_all
from anchor_jax.data.textures import GatheredPerson, gather_person
from anchor_jax.formats.tensors import weights_hash
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import to_signed
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.channels import PoseChannels, make_pose_channels, needs_texture
from anchor_jax.texture.gather import KEY_FRAMES

log = logging.getLogger(__name__)

LOOKED_UP = "conditions"  # array of looked-up channels, uint8 [H W C], 255 is 1; a key of batches and a name of files
_ENCODING = 1  # version; raise it when the same networks and records would be encoded differently
_LOOK_UP = 3  # version; raise it when the same records would be gathered or looked up differently
_CHUNK = 16  # records per call of the networks or of the look-up


def encoded_names(networks: Networks, with_context: bool) -> tuple[str, ...]:
  """Names of the encoded arrays; see `encode_records`."""
  return ("latent", *("inpaint",) * networks.inpaints, *("context",) * with_context)


def encode_records(
  source: Source,
  networks: Networks,
  weights: PyTree,
  folders: Sequence[Path],
  key: str,
  with_context: bool,
  share: tuple[int, int] = (0, 1),
  mesh: Mesh | None = None,
) -> Path:
  """The folder with the encoded records, which this run or an earlier one computed.

  The arrays, all float32, are latent [h w C], the mean of the posterior; inpaint [h w 1+C] for the head; and, if
  `with_context`, the image tokens context [N D]. `EncodedSource` reads them.

  Args:
    source: records with frame (and, for the head, keep_mask).
    networks, weights: with the autoencoder and the image tower.
    folders: candidates for the parent folder: the first with a complete result, else the first writable one, is used.
    key: the result of `cache_key`.
    with_context: whether to encode image tokens; False if the image tower is trained.
    share: (index, count) of this process in the run; see `complete_folder`.
    mesh: `sharding.own_devices` of the run, over which each call's records are sharded; None is JAX's default device.
  """
  encode = _make_encode(networks, with_context, mesh)

  def write(folder: Path, blocks: Sequence[int]) -> None:
    encoders = {name: weights[name] for name in _encoders(with_context)}
    encoders = jax.device_put(encoders, mesh and sharding.replicated(mesh))
    fields = ("frame", "keep_mask") if networks.inpaints else ("frame",)
    records = [record for block in blocks for record in block_records(block, len(source))]
    reading = iter(tqdm(read_all(source, records, fields), "encode", len(records), unit="frame"))
    for block in blocks:
      write_block(folder, block, encode(encoders, [next(reading) for _ in block_records(block, len(source))]))

  return complete_folder(folders, f"cache-{key}", encoded_names(networks, with_context), len(source), write, share)


def complete_folder(
  folders: Sequence[Path],
  name: str,
  arrays: Sequence[str],
  records: int,
  write: Callable[[Path, Sequence[int]], None],
  share: tuple[int, int] = (0, 1),
) -> Path:
  """A folder called `name` that holds all blocks of some arrays; missing and damaged blocks are written first.

  Args:
    folders: candidates for the parent folder: the first with all blocks, else the first writable one, is used.
    name: the folder's name.
    arrays: names of the arrays.
    records: number of records.
    write: write(folder, numbers) computes these blocks and writes them to a folder.
    share: (index, count) of this process in the run. Each process writes its share of the blocks, then any block that
      is still missing; on a shared disk none is.
  """
  (index, count), blocks = share, range(block_count(records))
  folder = _choose([place / name for place in folders], arrays, records)

  def write_missing(blocks: Sequence[int], checksums: bool) -> None:
    missing = [block for block in blocks if not _has(folder, block, arrays, records, checksums)]
    if missing:
      write(folder, missing)

  write_missing(blocks[index::count], checksums=True)
  if count > 1:
    multihost_utils.sync_global_devices(f"encoded {name}")
    write_missing(blocks, checksums=False)
  return folder


def cache_key(
  records: PreparedSource, networks: Networks, weights: PyTree, with_context: bool, crop: int | None
) -> str:
  """A hash of everything that decides the encoded records: networks, weights, records, and the size of the face crop.

  Record files may be large: only their sizes and both of their ends are hashed.
  """
  encoders = _encoders(with_context)
  model = to_plain(networks.model)
  facts = {
    "format": _ENCODING,
    "networks": {name: model[name] for name in encoders},
    "dtype": networks.dtype,
    "inpaints": networks.inpaints,
    "crop": crop,
    "weights": weights_hash({name: weights[name] for name in encoders}),
    "records": records.meta,
  }
  if networks.model.scale > 1:  # at scale 1 the key is left out, so that existing caches keep their names
    facts["scale"] = networks.model.scale
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  hash_files(digest, records.folder, records.meta)
  return digest.hexdigest()[:16]


def hash_records(digest: Any, records: PreparedSource) -> None:
  """Updates `digest` with a prepared folder's meta.json, and with both ends of its record files."""
  digest.update(json.dumps(records.meta, sort_keys=True).encode())
  hash_files(digest, records.folder, records.meta)


def _encoders(with_context: bool) -> tuple[str, ...]:
  """Names of the networks that encode records."""
  return ("vae", "image_encoder") if with_context else ("vae",)


def _has(folder: Path, block: int, names: Sequence[str], records: int, checksums: bool = False) -> bool:
  return read_block(folder, block, names, len(block_records(block, records)), checksums) is not None


def _choose(folders: Sequence[Path], names: Sequence[str], records: int) -> Path:
  """The first folder with all blocks, else the first writable one, else the last one untried."""
  for folder in folders:
    if all(_has(folder, block, names, records) for block in range(block_count(records))):
      return folder
  for folder in folders[:-1]:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      if os.access(folder, os.W_OK | os.X_OK):
        return folder
    except OSError as error:
      log.info("cannot write %s: %s", folder, error.strerror)
  return folders[-1]


def _make_encode(networks: Networks, with_context: bool, mesh: Mesh | None):
  """encode(weights, records) -> {name: array over the records}."""
  size = _CHUNK if mesh is None else sharding.batch_divisor(mesh) * -(-_CHUNK // sharding.batch_divisor(mesh))

  @jax.jit
  def encode_chunk(weights, batch):
    arrays = {"latent": networks.encode(weights, to_signed(batch["frame"]))}
    if networks.inpaints:
      arrays["inpaint"] = networks.inpainting_channels(
        weights, to_signed(batch["frame"]), batch["keep_mask"][..., 0] > 127
      )
    if with_context:
      arrays["context"] = networks.encode_reference(weights, batch["frame"])
    return arrays

  def encode(weights: PyTree, records: list[Record]) -> Block:
    chunks = []
    for start in range(0, len(records), size):
      chunk = records[start : start + size]
      full = chunk + chunk[-1:] * (size - len(chunk))  # padded to one shape: a single compilation
      batch = {name: np.stack([record[name] for record in full]) for name in full[0]}
      with sharding.use_mesh(mesh):
        arrays = encode_chunk(weights, batch if mesh is None else jax.device_put(batch, sharding.batch_sharding(mesh)))
      chunks.append({name: _host(values)[: len(chunk)] for name, values in arrays.items()})
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

  return encode


def _host(values: jax.Array) -> NdArray:
  return np.asarray(values, np.float32)


class FilmTextures:
  """Textures of the people in a prepared folder, gathered on demand; the last two people stay in memory."""

  def __init__(self, records: PreparedSource):
    """Reads nothing yet."""
    self.records = records
    self.of_person = functools.lru_cache(maxsize=2)(self._gather)

  def _gather(self, person: int) -> GatheredPerson:
    return gather_person(self.records, person)

  def block_of(self, record: int) -> tuple[int, int]:
    """(person, block of the film) of a record; a record without a surface map gets the nearest block."""
    person = int(self.records.people[record])
    gathered, numbers = self.of_person(person)
    return person, int(gathered.blocks.of_frame[min(int(np.searchsorted(numbers, record)), len(numbers) - 1)])


def check_surface(kind: str, records: PreparedSource) -> None:
  """Raises UserError if config.data.pose_channels needs surface maps and the prepared folder has none."""
  if kind and not records.has_surface.any():
    raise UserError(
      f"{records.folder} has no surface maps, which config.data.pose_channels={kind} needs: prepare the videos again"
    )


def look_up_records(
  kind: str,
  textures: FilmTextures,
  folders: Sequence[Path],
  share: tuple[int, int] = (0, 1),
  crop: int | None = None,
) -> Path:
  """The folder with the channels of every record, the array `LOOKED_UP`, which this run or an earlier one computed.

  Args:
    kind: value of `config.data.pose_channels`, not "".
    textures: of the people in the prepared folder.
    folders: candidates for the parent folder: the first with a complete result, else the first writable one, is used.
    share: (index, count) of this process in the run.
    crop: size of the head's face crops in pixels, for the records that `head_source` takes; None is the full frame.

  Raises:
    UserError: a person has no surface map.
  """
  records = textures.records
  chosen = np.arange(len(records)) if crop is None else np.flatnonzero(records.has_landmarks)

  @functools.lru_cache(maxsize=1)  # consecutive records belong to one block
  def seen_by(person: int, block: int) -> tuple[PoseChannels, ShownPlate]:
    texture = textures.of_person(person).gathered.texture(block)
    return make_pose_channels(kind, texture), ShownPlate(texture)

  def looked_up_from(record: int) -> tuple[PoseChannels, ShownPlate | None]:
    return seen_by(*textures.block_of(record)) if needs_texture(kind) else (make_pose_channels(kind), None)

  def plates(numbers: Sequence[int], shown: ShownPlate | None) -> UInt8[NdArray, "N H W 4"] | None:
    """The background plate as the camera of each record shows it; None if all cameras are still."""
    if records.cameras is None or shown is None:
      return None
    return np.stack([shown.through(records.cameras[number]) for number in numbers])

  def write(folder: Path, blocks: Sequence[int]) -> None:
    for block in tqdm(blocks, "look up", unit="block"):
      numbers = chosen[block_records(block, len(chosen))].tolist()
      surfaces, places = _read(records, numbers, crop)
      keys = [textures.block_of(number) if needs_texture(kind) else 0 for number in numbers]
      starts = [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]]
      ends = [*starts[1:], len(keys)]
      looked_up = []
      for i, j in zip(starts, ends, strict=True):
        pose_channels, shown = looked_up_from(numbers[i])
        own_places = None if places is None else places[i:j]
        looked_up.append(_look_up(pose_channels, surfaces[i:j], own_places, plates(numbers[i:j], shown)))
      write_block(folder, block, {LOOKED_UP: np.concatenate(looked_up)})

  facts: dict[str, Any] = {"format": _LOOK_UP, "kind": kind, "key_frames": KEY_FRAMES, "charts": CHARTS}
  facts |= {} if crop is None else {"part": "head", "crop": crop}
  digest = hashlib.sha256(json.dumps(facts).encode())
  hash_records(digest, records)
  name = f"conditions-{digest.hexdigest()[:16]}"
  return complete_folder(folders, name, (LOOKED_UP,), len(chosen), write, share)


def _read(
  records: PreparedSource, numbers: Sequence[int], crop: int | None
) -> tuple[UInt8[NdArray, "N H W 3"], Int[NdArray, "N S S 2"] | None]:
  """Surface maps of some records; if `crop` is given, also where in them the pixels of each face crop lie."""
  if crop is None:
    return np.stack([record["surface"] for record in read_all(records, numbers, ("surface",))]), None
  fields = list(read_all(records, numbers, ("surface", "landmarks")))
  frame_size = records.size.shape
  places = [crop_places(face_transform(record["landmarks"], crop), crop, frame_size) for record in fields]
  return np.stack([record["surface"] for record in fields]), np.stack(places)


@jax.jit
def _look_up_chunk(
  pose_channels: PoseChannels,
  surface: UInt8[Array, "N H W 3"],
  places: Int[Array, "N S S 2"] | None,
  plates: UInt8[Array, "N H W 4"] | None,
) -> UInt8[Array, "N h w C"]:
  return pose_channels(surface, places, plates)


def _look_up(
  pose_channels: PoseChannels,
  surfaces: UInt8[NdArray, "N H W 3"],
  places: Int[NdArray, "N S S 2"] | None,
  plates: UInt8[NdArray, "N H W 4"] | None = None,
) -> UInt8[NdArray, "N h w C"]:
  """The channels of records of one block, computed in padded chunks of one shape: a single compilation."""
  chunks = []
  for start in range(0, len(surfaces), _CHUNK):
    count = min(_CHUNK, len(surfaces) - start)
    rows = start + np.minimum(np.arange(_CHUNK), count - 1)
    chosen = (None if each is None else each[rows] for each in (places, plates))
    chunk = _look_up_chunk(pose_channels, surfaces[rows], *chosen)
    chunks.append(np.asarray(chunk)[:count])
  return np.concatenate(chunks)
