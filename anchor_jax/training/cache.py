"""Encodes every record once, so that training steps need neither the autoencoder nor, where frozen, the image tower."""

import jax
import numpy as np
from tqdm import tqdm

from anchor_jax.data.sources import Record, Source, read_all
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.shapes import NdArray, PyTree

_CHUNK = 16


def encode_records(source: Source, networks: Networks, weights: PyTree, with_context: bool) -> dict[str, NdArray]:
  """What the denoising loss needs of each record's pictures, as arrays with one entry a record.

  Args:
    source: records with frame (and, for the head, keep_mask).
    networks, weights: with the autoencoder and the image tower.
    with_context: also the appearance tokens of each frame; not where the image tower is trained.

  Returns:
    latent [N h w C], the posterior's mean; inpaint [N h w 1+C] for the head; context [N tokens D] if asked for.
  """

  @jax.jit
  def encode(weights, batch):
    made = {"latent": networks.encode(weights, to_signed(batch["frame"]))}
    if networks.inpaints:
      made["inpaint"] = networks.inpaint_condition(weights, to_signed(batch["frame"]), batch["keep_mask"][..., 0] > 127)
    if with_context:
      made["context"] = networks.encode_appearance(weights, batch["frame"])
    return made

  def encode_chunk(records: list[Record]) -> dict[str, NdArray]:
    full = records + records[-1:] * (_CHUNK - len(records))  # a short last chunk would compile anew
    made = encode(weights, {name: np.stack([record[name] for record in full]) for name in fields})
    return {name: np.asarray(values)[: len(records)] for name, values in made.items()}

  fields = ("frame", "keep_mask") if networks.inpaints else ("frame",)
  chunks, waiting = [], []
  for record in tqdm(read_all(source, range(len(source)), fields), "encode", len(source), unit="frame"):
    waiting.append(record)
    if len(waiting) == _CHUNK:
      chunks.append(encode_chunk(waiting))
      waiting = []
  if waiting:
    chunks.append(encode_chunk(waiting))
  return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
