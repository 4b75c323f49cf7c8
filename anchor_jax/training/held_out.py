"""What a run computes on held-out records: their loss, and a sheet of preview pictures.

The loss uses the same noise and timesteps each time, so that values of different steps can be compared.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.run import RunConfig
from anchor_jax.core.shapes import NdArray, PyTree, UInt8
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.files.outputs import new_file
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import to_bytes, to_signed
from anchor_jax.store.workdir import REFERENCE_IMAGE
from anchor_jax.texture.channels import to_unit
from anchor_jax.training.accumulation import in_parts
from anchor_jax.training.draws import Batch
from anchor_jax.training.loss import make_loss
from anchor_jax.training.precompute import LOOKED_UP

log = logging.getLogger(__name__)

DRAWS = 4  # of noise and timesteps for each batch; with fewer, their variance hides differences between checkpoints


def make_validation(
  config: RunConfig, networks: Networks, batches: Sequence[dict[str, Any]], to_mesh: Callable[[dict[str, Any]], Batch]
) -> Callable[[PyTree, PyTree, Callable[[], bool]], float | None]:
  """validate(trained, frozen, stopped): the mean loss over `batches`, without dropout; None once stopped() is True.

  Each batch is split into the accumulation parts of the training step, so that it fits into memory if the step does.

  Args:
    config, networks: of the run.
    batches: this process's shard of each batch.
    to_mesh: makes global arrays of a shard.
  """
  loss = in_parts(make_loss(dataclasses.replace(config, condition_dropout=0.0), networks), config.optimizer.accumulate)

  @jax.jit
  def mean_loss(trained, frozen, batch, key):
    return jnp.mean(jax.lax.map(lambda key: loss(trained, frozen, batch, key)[0], jax.random.split(key, DRAWS)))

  def validate(trained: PyTree, frozen: PyTree, stopped: Callable[[], bool] = lambda: False) -> float | None:
    losses = []
    for number, batch in enumerate(batches):
      if stopped():
        return None
      losses.append(mean_loss(trained, frozen, to_mesh(batch), jax.random.key(number)))
    return float(np.mean(jax.device_get(losses)))

  return validate


def preview(
  networks: Networks, weights: PyTree, batch: dict[str, Any], config: RunConfig, sharding: Any = None
) -> UInt8[NdArray, "H W 3"]:
  """A sheet of pictures, one column per example: the inputs, the true frame, the generated frame.

  Each example is sampled as a clip of one frame, with its own reference image.

  Args:
    networks, weights: all networks of the part.
    batch: single frames, from `TrainingData.preview_batch`.
    config: of the run.
    sharding: of the generated pictures; must be replicated if the weights are on several devices.
  """
  target, reference = batch["target"], batch["reference"]
  if config.part == "vae":
    reconstruct = jax.jit(_reconstruct, static_argnums=0, out_shardings=sharding)
    rows = [target["frame"], _bytes(reconstruct(networks, weights, target["frame"]))]
  else:
    sample = jax.jit(_sample, static_argnums=(0, 4), out_shardings=sharding)
    generated = sample(networks, weights, target, reference["frame"], config)
    rows = [target["pose"], reference["frame"], target["frame"], _bytes(generated)]
    if networks.inpaints:
      rows[1] = np.where(target["keep_mask"] > 127, target["frame"], 127)
  return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def save_reference_image(folder: Path, frame: UInt8[NdArray, "H W 3"]) -> None:
  """Writes the person's reference image, the default of `generate`, to a part's folder."""
  with new_file(folder / REFERENCE_IMAGE) as path:
    cv2.imwrite(str(path), frame[..., ::-1])


def _reconstruct(networks, weights, frames):
  return networks.decode(weights, networks.encode(weights, to_signed(frames)))


def _sample(networks, weights, target, references, config):
  frame_by_frame = dataclasses.replace(config.sample, window=1, overlap=0, tail="ragged", windows_per_batch=1)
  sampler = Sampler.of(frame_by_frame, networks.model.schedule)
  images = to_signed(target["frame"])

  def one(pose, reference, image, keep, looked_up):
    pose_channels = None if looked_up is None else to_unit(looked_up[None, None])
    features = networks.embed_pose(weights, pose[None, None], pose_channels)[0]
    inpainting = networks.inpainting_channels(weights, image[None], keep[None] > 127) if networks.inpaints else None
    context = networks.encode_reference(weights, reference[None])[0]
    latent = *(side // networks.model.stride for side in image.shape[:2]), networks.model.unet.out_channels
    noise = jax.random.normal(jax.random.key(0), (1, *latent))

    def denoise(*arguments):
      return networks.denoise(weights, *arguments, conditioning_scale=config.sample.conditioning_scale)

    latents = sampler.clip(denoise, noise, FrameInputs(features, inpainting), context, weights["null_context"])
    return networks.paint(weights, latents, pose[None], None if pose_channels is None else pose_channels[0])[0]

  keep = target.get("keep_mask", jnp.zeros((*images.shape[:3], 1), jnp.uint8))[..., 0]
  return jax.lax.map(lambda example: one(*example), (target["pose"], references, images, keep, target.get(LOOKED_UP)))


def _bytes(images) -> UInt8[NdArray, "B H W 3"]:
  pictures, finite = map(np.asarray, to_bytes(jnp.asarray(np.asarray(images))))
  if not finite.all():  # not worth ending a run for
    log.warning("%d of %d previews have non-finite pixels, shown black", (~finite).sum(), len(finite))
  return pictures
