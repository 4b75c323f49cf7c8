"""The records of a run, and the batches made from them."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anchor_jax.config.json_file import Config
from anchor_jax.config.networks import ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.config.run import ModelConfig, RunConfig
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Int, NdArray, PyTree, UInt8
from anchor_jax.data.encoded import EncodedSource
from anchor_jax.data.faces import head_source
from anchor_jax.data.loader import make_loader
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import ArraySource, Source, load_records, split_records
from anchor_jax.files.shipped import folder_of
from anchor_jax.formats.diffusers import load_network_config
from anchor_jax.formats.folders import find_place
from anchor_jax.models.controlnet import RENDER_CHANNELS
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import has_weights, is_workdir
from anchor_jax.texture.channels import branch_channels, needs_texture
from anchor_jax.texture.stored import Texture
from anchor_jax.training.loss import batch_fields
from anchor_jax.training.precompute import (
  LOOKED_UP,
  FilmTextures,
  cache_key,
  encode_records,
  encoded_names,
  look_up_records,
)

PICTURES = {"frame": 3, "pose": 3, "keep_mask": 1, "surface": 3}  # channels of each uint8 field


@dataclasses.dataclass(frozen=True)
class TrainingData:
  """Makes the batches of a run.

  Attributes:
    config: settings of the run.
    pictures: records with all picture fields.
    source: records with the fields that the loss reads.
    share: (index, count): which of how many equal shards of each batch this process reads.
    textures: of the people in the prepared folder; None if config.data.pose_channels needs none.
  """

  config: RunConfig
  pictures: Source
  source: Source
  share: tuple[int, int]
  textures: FilmTextures | None = None

  @property
  def trained_on(self) -> Int[NdArray, " N"]:
    """Numbers of the records to train on."""
    return split_records(len(self.source), self.config.data.validation)[0]

  @property
  def held_out(self) -> Int[NdArray, " M"]:
    """Numbers of the records held out of training; reference images come from the other records."""
    return split_records(len(self.source), self.config.data.validation)[1]

  def training_batches(self) -> grain.DatasetIterator:
    """Endless training batches."""
    workers = 0 if isinstance(self.pictures, ArraySource) or self.config.data.in_memory else self.config.data.workers
    return self._loader(self.trained_on, workers=workers)

  def validation_batches(self) -> list[dict[str, Any]]:
    """Batches that cover every held-out record."""
    count = -(-len(self.held_out) // self.config.data.batch_size)
    return list(itertools.islice(self._loader(self.held_out), count))

  def preview_batch(self) -> dict[str, Any]:
    """Up to eight single frames for previews, the same in every process and throughout the run."""
    target = ("frame",)
    if self.config.part != "vae":
      target += ("pose", "keep_mask") if self.config.part == "head" else ("pose",)
      target += (LOOKED_UP,) * bool(self.config.data.pose_channels)
    records = evenly_spaced(self.held_out if len(self.held_out) else self.trained_on)
    reference = () if self.config.part == "vae" else ("frame",)
    return next(self._pictures(records, 8, target, reference))

  def first_reference(self) -> UInt8[NdArray, "H W 3"]:
    """The reference image of the first training example."""
    return next(self._pictures(self.trained_on, 1, (), ("frame",)))["reference"]["frame"][0]

  def first_texture(self) -> Texture | None:
    """The texture of the person in `first_reference`, from the entire film; None if `textures` is None."""
    if self.textures is None:
      return None
    first = int(next(self._pictures(self.trained_on, 1, (), ("frame",)))["record"][0])
    return self.textures.of_person(int(self.pictures.people[first])).gathered.texture()

  def _loader(self, records: Int[NdArray, " K"], workers: int = 0) -> grain.DatasetIterator:
    config, (index, count) = self.config, self.share
    target, reference = batch_fields(config)
    return make_loader(
      self.source,
      batch_size=config.data.batch_size,
      seed=config.seed,
      target=target,
      reference=reference,
      records=records,
      references=self.trained_on,
      clip=config.data.clip_frames,
      process_index=index,
      process_count=count,
      workers=workers,
    )

  def _pictures(
    self, records: Int[NdArray, " K"], count: int, target: tuple[str, ...], reference: tuple[str, ...]
  ) -> grain.DatasetIterator:
    return make_loader(
      self.pictures,
      batch_size=count,
      seed=self.config.seed,
      target=target,
      reference=reference,
      records=records,
      references=self.trained_on,
    )


def open_training_data(
  config: RunConfig,
  records: PreparedSource,
  networks: Networks,
  weights: PyTree,
  folder: Path,
  share: tuple[int, int] = (0, 1),
  mesh: Mesh | None = None,
) -> TrainingData:
  """The data of a run, encoded and loaded into memory as config.data says.

  Args:
    config: settings of the run.
    records: of the prepared folder.
    networks, weights: used to encode the records.
    folder: WORKDIR/PART, for encoded records if the prepared folder cannot be written.
    share: (index, count): which of how many equal shards of each batch this process reads.
    mesh: this process's devices, over which encoding is sharded; None is JAX's default device.

  Raises:
    UserError: the part is the head and no record has a face, or config.data.pose_channels needs surface maps and there
      are none.
  """
  target, reference = batch_fields(config)
  crop = config.data.crop if config.part == "head" else None
  pictures: Source = records if crop is None else head_source(records, crop)
  with_context = not config.train_image_encoder
  encoded = encoded_names(networks, with_context) if config.data.cache and config.part != "vae" else ()
  place = None
  processes, folders = (jax.process_index(), jax.process_count()), (records.folder, folder)
  if encoded:
    key = cache_key(records, networks, weights, with_context, crop)
    place = encode_records(pictures, networks, weights, folders, key, with_context, processes, mesh)
  source = pictures
  if config.data.in_memory and not isinstance(pictures, ArraySource):
    source = load_records(pictures, sorted({*target, *reference} - {*encoded, LOOKED_UP}), progress="read")
  if place is not None:
    source = EncodedSource(source, place, encoded)
  kind = config.data.pose_channels
  if not kind:
    return TrainingData(config, pictures, source, share)
  textures = FilmTextures(records)
  place = look_up_records(kind, textures, folders, processes, crop)
  pictures, source = (EncodedSource(inner, place, (LOOKED_UP,)) for inner in (pictures, source))
  return TrainingData(config, pictures, source, share, textures if needs_texture(kind) else None)


def batch_shapes(
  config: RunConfig, size: int | FrameSize, sharding: Any = None
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
  """Shapes and types of a global batch, with the fields that the loss reads.

  Args:
    config: with the networks' sizes.
    size: of the prepared frames.
    sharding: of every array.
  """
  model, count = config.model, config.data.batch_size
  picture = picture_size(config, size).shape
  small = tuple(side // model.stride for side in picture)
  shapes: dict[str, tuple[tuple[int, ...], Any]]
  shapes = {name: ((*picture, channels), jnp.uint8) for name, channels in PICTURES.items()}
  shapes[LOOKED_UP] = ((*picture, branch_channels(config.data.pose_channels) - RENDER_CHANNELS), jnp.uint8)
  shapes["latent"] = ((*small, model.unet.out_channels), jnp.float32)
  shapes["inpaint"] = ((*small, model.unet.in_channels - model.unet.out_channels), jnp.float32)
  shapes["context"] = ((model.image_encoder.tokens, model.unet.cross_attention_dim), jnp.float32)
  clip = (config.data.clip_frames,) if config.data.clip_frames > 1 else ()
  sides = {"target": (batch_fields(config)[0], (count, *clip)), "reference": (batch_fields(config)[1], (count,))}
  shape = lambda name, leading: jax.ShapeDtypeStruct((*leading, *shapes[name][0]), shapes[name][1], sharding=sharding)
  return {side: {name: shape(name, leading) for name in names} for side, (names, leading) in sides.items()}


def picture_size(config: RunConfig, size: int | FrameSize) -> FrameSize:
  """The size of the pictures that a part paints: that of the prepared frames, or for the head that of face crops."""
  return FrameSize.of(config.data.crop if config.part == "head" else size)


def evenly_spaced(records: Int[NdArray, " N"], count: int = 8) -> Int[NdArray, " M"]:
  """At most `count` of the records, evenly spaced, since neighboring frames look alike."""
  return records[np.unique(np.linspace(0, len(records) - 1, count).astype(int))]


def initial_model(config: RunConfig) -> ModelConfig:
  """The sizes of the networks that a run starts from, as far as they can be read without reading weights."""
  if not config.init:
    return config.model
  folder = folder_of(config.init)
  if is_workdir(folder):
    trained = [part for part in (config.part, "body", "vae") if has_weights(folder / part)]
    if not trained:
      return config.model
    found = read_settings(folder / trained[0]).model
    return found if trained[0] == config.part else dataclasses.replace(config.model, vae=found.vae)
  sizes: dict[str, Any] = {}
  for role, kind in (("vae", VAEConfig), ("unet", UNetConfig), ("controlnet", ControlNetConfig)):
    place = find_place(folder, config.part, role)
    if place is not None:
      sizes[role] = load_network_config(place.path(folder), kind)
  return dataclasses.replace(config.model, **sizes)


def check_requested_model(config: RunConfig, found: ModelConfig) -> None:
  """Raises UserError if the weights at config.init would override sizes that config.model requests.

  A default value requests nothing. `Config.with_own_fields` decides the fields that only this package has,
  config.data.pose_channels the channels of the pose branch, and config.zero_snr the schedule.

  Args:
    config: requested settings of the run.
    found: the sizes that the run starts with.
  """
  if not config.init:
    return
  for name in ("unet", "controlnet", "vae", "image_encoder", "refiner", *("schedule",) * (not config.zero_snr)):
    requested, actual = getattr(config.model, name), getattr(found, name)
    if not isinstance(requested, Config) or type(requested) is not type(actual):  # the refiner may be None or "init"
      continue
    for field in dataclasses.fields(requested):
      value, other = getattr(requested, field.name), getattr(actual, field.name)
      decided_elsewhere = field.name in (*requested.own_fields, "conditioning_channels", "sample_size")
      if not decided_elsewhere and value not in (field.default, other):
        raise UserError(
          f"config.model.{name}.{field.name} is {one_line(value, 60)} and the weights at config.init={config.init} have"
          f" {one_line(other, 60)}: leave that setting out, or start from other weights"
        )


def check_sizes(config: RunConfig, size: int | FrameSize) -> None:
  """Raises UserError if the pictures cannot be halved at every level of the networks.

  Args:
    config: with the networks' sizes.
    size: of the prepared frames.
  """
  model = config.model
  picture = picture_size(config, size)
  multiple = model.multiple(config.part)
  if any(side % multiple for side in picture):
    raise UserError(f"pictures of {picture} pixels don't fit these networks: use a multiple of {multiple}")
  if config.part != "vae" and model.controlnet.stem_stride != model.vae.stride:
    raise UserError(
      f"the pose branch shrinks pictures by {model.controlnet.stem_stride} and the autoencoder by {model.vae.stride}:"
      " they must agree (model.controlnet.conditioning_embedding_out_channels)"
    )
