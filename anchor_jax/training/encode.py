"""Encodes every record once, so that training steps need neither the autoencoder nor the frozen image tower.

The result is kept in the prepared folder, or in the part's folder of the workdir if the prepared folder cannot be
written, as cache-KEY: KEY is a hash of the networks, of the records and of the size of the head's crop. A later start
reuses it; blocks that are missing or damaged are encoded again.
"""

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

from anchor_jax.config.run import to_plain
from anchor_jax.core import sharding
from anchor_jax.core.shapes import NdArray, PyTree
from anchor_jax.data.encoded import Block, block_count, block_records, read_block, write_block
from anchor_jax.data.identity import hash_files
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import Record, Source, read_all
from anchor_jax.formats.tensors import weights_hash
from anchor_jax.models.networks import Networks, to_signed

log = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when the same networks and records would be encoded differently
_CHUNK = 16  # records per call of the networks


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
  """The folder with what the denoising loss needs of every record, encoded now or by an earlier run.

  The arrays are latent [h w C], the mean of the posterior; inpaint [h w 1+C] for the head; and with `with_context` the
  image tokens context [N D]. All float32; `EncodedSource` reads them.

  Args:
    source: records with frame (and, for the head, keep_mask).
    networks, weights: with the autoencoder and the image tower.
    folders: where the result may be kept; the first that has it, or else the first that can be written, is used.
    key: of `cache_key`.
    with_context: whether to encode the image tokens; not if the image tower is trained.
    share: (index, count) of this process among those of the run; see `complete_folder`.
    mesh: `parallel.own_devices` of the run, which share each call's records; None is JAX's default device.
  """
  encode = _make_encode(networks, with_context, mesh)

  def write(folder: Path, blocks: Sequence[int]) -> None:
    used = jax.device_put({name: weights[name] for name in _used(with_context)}, mesh and sharding.replicated(mesh))
    fields = ("frame", "keep_mask") if networks.inpaints else ("frame",)
    records = [record for block in blocks for record in block_records(block, len(source))]
    reading = iter(tqdm(read_all(source, records, fields), "encode", len(records), unit="frame"))
    for block in blocks:
      write_block(folder, block, encode(used, [next(reading) for _ in block_records(block, len(source))]))

  return complete_folder(folders, f"cache-{key}", encoded_names(networks, with_context), len(source), write, share)


def complete_folder(
  folders: Sequence[Path],
  name: str,
  arrays: Sequence[str],
  records: int,
  write: Callable[[Path, Sequence[int]], None],
  share: tuple[int, int] = (0, 1),
) -> Path:
  """A folder called `name` that holds all blocks of some arrays, the missing and damaged ones written now.

  Args:
    folders: where it may be; the first that has all blocks, or else the first that can be written, is used.
    name: of the folder.
    arrays: their names.
    records: number of records.
    write: writes blocks of these numbers to a folder.
    share: (index, count) of this process among those of the run. Each writes its share of the blocks and then whatever
      is still missing, which is nothing if they share a disk.
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
  """A hash of all that decides the encoded records: the networks and their weights, the records, and the crop's size.

  Of the files of records, which may be large, it takes the sizes and both ends.
  """
  used = _used(with_context)
  model = to_plain(networks.model)
  facts = {
    "format": _FORMAT,
    "networks": {name: model[name] for name in used},
    "dtype": networks.dtype,
    "inpaints": networks.inpaints,
    "crop": crop,
    "weights": weights_hash({name: weights[name] for name in used}),
    "records": records.meta,
  }
  if networks.model.scale > 1:  # caches of frames that the networks see as they are keep their names
    facts["scale"] = networks.model.scale
  digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  hash_files(digest, records.folder, records.meta)
  return digest.hexdigest()[:16]


def hash_records(digest: Any, records: PreparedSource) -> None:
  """Adds to a hash what a prepared folder says of its records, and both ends of the files that hold them."""
  digest.update(json.dumps(records.meta, sort_keys=True).encode())
  hash_files(digest, records.folder, records.meta)


def _used(with_context: bool) -> tuple[str, ...]:
  """The networks that encode."""
  return ("vae", "image_encoder") if with_context else ("vae",)


def _has(folder: Path, block: int, names: Sequence[str], records: int, checksums: bool = False) -> bool:
  return read_block(folder, block, names, len(block_records(block, records)), checksums) is not None


def _choose(folders: Sequence[Path], names: Sequence[str], records: int) -> Path:
  """The first folder with all blocks, else the first that can be written; the last one is not tried."""
  for folder in folders:
    if all(_has(folder, block, names, records) for block in range(block_count(records))):
      return folder
  for folder in folders[:-1]:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      if os.access(folder, os.W_OK | os.X_OK):
        return folder
    except OSError as error:
      log.info("encoded records cannot be kept in %s: %s", folder, error.strerror)
  return folders[-1]


def _make_encode(networks: Networks, with_context: bool, mesh: Mesh | None):
  """encode(weights, records) -> their arrays."""
  size = _CHUNK if mesh is None else sharding.batch_divisor(mesh) * -(-_CHUNK // sharding.batch_divisor(mesh))

  @jax.jit
  def encode_chunk(weights, batch):
    made = {"latent": networks.encode(weights, to_signed(batch["frame"]))}
    if networks.inpaints:
      made["inpaint"] = networks.inpaint_condition(weights, to_signed(batch["frame"]), batch["keep_mask"][..., 0] > 127)
    if with_context:
      made["context"] = networks.encode_reference(weights, batch["frame"])
    return made

  def encode(weights: PyTree, records: list[Record]) -> Block:
    chunks = []
    for start in range(0, len(records), size):
      chunk = records[start : start + size]
      full = chunk + chunk[-1:] * (size - len(chunk))  # one shape for all, so that nothing compiles twice
      batch = {name: np.stack([record[name] for record in full]) for name in full[0]}
      with sharding.use_mesh(mesh):
        made = encode_chunk(weights, batch if mesh is None else jax.device_put(batch, sharding.batch_sharding(mesh)))
      chunks.append({name: _host(values)[: len(chunk)] for name, values in made.items()})
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

  return encode


def _host(values: jax.Array) -> NdArray:
  return np.asarray(values, np.float32)
