"""Pictures of the progress of a run: pose, true frame and generated frame."""

import dataclasses
import logging
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
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.models.pictures import to_bytes
from anchor_jax.store.workdir import REFERENCE_IMAGE
from anchor_jax.texture.channels import to_unit

log = logging.getLogger(__name__)


def preview(
  networks: Networks, weights: PyTree, batch: dict[str, Any], config: RunConfig, sharding: Any = None
) -> UInt8[NdArray, "H W 3"]:
  """A sheet of pictures with one column per example: inputs at the top, then the true frame, then what is generated.

  Each example is sampled as a clip of one frame, with its own reference.

  Args:
    networks, weights: all networks of the part.
    batch: single frames, as `TrainingData.preview_batch` makes them.
    config: of the run.
    sharding: of the generated pictures; replicated if the weights are on several devices.
  """
  target, reference = batch["target"], batch["reference"]
  if config.part == "vae":
    reconstruct = jax.jit(_reconstruct, static_argnums=0, out_shardings=sharding)
    rows = [target["frame"], _bytes(reconstruct(networks, weights, target["frame"]))]
  else:
    sample = jax.jit(_sample, static_argnums=(0, 4), out_shardings=sharding)
    made = sample(networks, weights, target, reference["frame"], config)
    rows = [target["pose"], reference["frame"], target["frame"], _bytes(made)]
    if networks.inpaints:
      rows[1] = np.where(target["keep_mask"] > 127, target["frame"], 127)
  return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def save_reference_image(folder: Path, frame: UInt8[NdArray, "H W 3"]) -> None:
  """Writes a reference frame of the person, which `generate` uses if it is given none, to a part's folder."""
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
    condition = {"pose": networks.embed_pose(weights, pose[None, None], pose_channels)[0]}
    if networks.inpaints:
      condition["inpaint"] = networks.inpaint_condition(weights, image[None], keep[None] > 127)
    context = networks.encode_reference(weights, reference[None])[0]
    side = image.shape[0] // networks.model.stride
    noise = jax.random.normal(jax.random.key(0), (1, side, side, networks.model.unet.out_channels))

    def denoise(*inputs):
      return networks.denoise(weights, *inputs, conditioning_scale=config.sample.conditioning_scale)

    latents = sampler.clip(denoise, noise, condition, context, weights["null_context"])
    return networks.paint(weights, latents, pose[None], None if pose_channels is None else pose_channels[0])[0]

  keep = target.get("keep_mask", jnp.zeros((*images.shape[:3], 1), jnp.uint8))[..., 0]
  return jax.lax.map(
    lambda example: one(*example), (target["pose"], references, images, keep, target.get("conditions"))
  )


def _bytes(images) -> UInt8[NdArray, "B H W 3"]:
  made, finite = map(np.asarray, to_bytes(jnp.asarray(np.asarray(images))))
  if not finite.all():  # a run need not end for a picture of its progress
    log.warning("%d of %d previews have values that are no finite numbers, black there", (~finite).sum(), len(finite))
  return made
