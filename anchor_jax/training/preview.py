"""Pictures of how a run is doing: pose, truth and what the networks make of it."""

from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config import RunConfig
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.sampler import sample_clip
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import WindowRule, plan_windows
from anchor_jax.files import new_file
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.shapes import NdArray, PyTree, UInt8
from anchor_jax.store.workdir import APPEARANCE


def preview(
  networks: Networks, weights: PyTree, batch: dict[str, NdArray], config: RunConfig, everywhere: Any = None
) -> UInt8[NdArray, "H W 3"]:
  """A sheet, one column an example: what goes in above, the truth, what comes out.

  Each example is sampled as a clip of one frame, with its own reference. `everywhere` is the sharding of what all
  devices have, where there are several.
  """
  if config.part == "vae":
    rows = [
      batch["frame"],
      _bytes(jax.jit(_reconstruct, static_argnums=0, out_shardings=everywhere)(networks, weights, batch["frame"])),
    ]
  else:
    made = jax.jit(_sample, static_argnums=(0, 3), out_shardings=everywhere)(networks, weights, batch, config)
    rows = [batch["pose"], batch["reference_frame"], batch["frame"], _bytes(made)]
    if networks.inpaints:
      rows[1] = np.where(batch["keep_mask"] > 127, batch["frame"], 127)
  return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def save_appearance(folder: Path, batch: dict[str, NdArray]) -> None:
  """Keeps one reference picture of the person, which `generate` uses where it is given none."""
  place = folder / APPEARANCE
  if "reference_frame" in batch and not place.exists():
    with new_file(place) as path:
      cv2.imwrite(str(path), batch["reference_frame"][0][..., ::-1])


def _reconstruct(networks, weights, frames):
  return networks.decode(weights, networks.encode(weights, to_signed(frames)))


def _sample(networks, weights, batch, config):
  solver = make_solver(config.sample.solver, networks.model.schedule, config.sample.steps)
  images = to_signed(batch["frame"])

  def one(pose, reference, image, keep):
    condition = {"pose": networks.embed_pose(weights, pose[None, None])[0]}
    if networks.inpaints:
      condition["inpaint"] = networks.inpaint_condition(weights, image[None], keep[None] > 127)
    context = networks.encode_appearance(weights, reference[None])[0]
    side = image.shape[0] // networks.model.vae.stride
    noise = jax.random.normal(jax.random.key(0), (1, side, side, networks.model.unet.out_channels))

    def denoise(*inputs):
      return networks.denoise(weights, *inputs, conditioning_scale=config.sample.conditioning_scale)

    branches = make_branches(context, weights["null_context"], config.sample.guidance)
    latents = sample_clip(denoise, solver, plan_windows(WindowRule(1, 0), 1), noise, branches, condition)
    return networks.decode(weights, latents)[0]

  keep = batch.get("keep_mask", jnp.zeros((*images.shape[:3], 1), jnp.uint8))[..., 0]
  return jax.lax.map(lambda example: one(*example), (batch["pose"], batch["reference_frame"], images, keep))


def first_frame_of_clips(batch: dict[str, NdArray]) -> dict[str, NdArray]:
  """A batch of clips as one of their first frames; one of frames as it is."""
  if batch.get("pose", batch["frame"] if "frame" in batch else np.zeros(0)).ndim != 5:
    return batch
  of_clips = lambda name: not name.startswith("reference_") and batch[name].ndim > 1
  return {name: values[:, 0] if of_clips(name) else values for name, values in batch.items()}


def _bytes(images) -> UInt8[NdArray, "B H W 3"]:
  return np.round(np.asarray(images) * 255).astype(np.uint8)
