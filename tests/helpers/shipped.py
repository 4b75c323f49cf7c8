"""The shipped configs, with networks and pictures small enough for a test."""

import dataclasses
import pathlib
import runpy

import numpy as np
from tiny import drawn_weights, tiny_model

from anchor_jax.body.charts import chart
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import RunConfig, run_config
from anchor_jax.models.networks import Networks
from anchor_jax.texture.channels import branch_channels
from anchor_jax.training.batches import batch_shapes

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
SHIPPED = (
  *((f"studio_{kind}", part) for kind in ("pretrain", "finetune") for part in ("vae", "body", "head")),
  *((f"sd15_{part}_{kind}", None) for part in ("body", "head") for kind in ("pretrain", "finetune")),
  ("sd15_temporal", None),
  ("studio_256", None),
  ("studio_512", None),
  *((f"{size}_distil", part) for size in ("studio", "sd15") for part in ("body", "head")),
)
SHIPPED = tuple(one for one in SHIPPED if one != ("studio_finetune", "vae"))


def shipped_config(file: str, part: str | None) -> RunConfig:
  """The settings in a shipped file."""
  get_config = runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"]
  return run_config(get_config(part) if part else get_config())


def shrunk(config: RunConfig, batch_size: int = 8) -> RunConfig:
  """The settings with networks of eight channels, for pictures of 16 pixels where its refiner enlarges them, else 8.

  What comes with the studio's weights (a refiner, a pose branch with looked-up channels) is there as well.
  """
  tiny = tiny_model(inpaint=config.part == "head")
  temporal = {name: getattr(config.model.unet, name) for name in ("temporal_kernel", "temporal_attention")}
  branch = dataclasses.replace(tiny.controlnet, conditioning_channels=branch_channels(config.data.pose_channels))
  refiner = config.model.own_refiner
  if refiner is not None or (config.part == "body" and config.init == "studio"):
    refiner = RefinerConfig(23, 2, (8, 8), 4, scale=1 if refiner is None else refiner.scale)
  schedule = config.model.schedule
  if config.zero_snr:
    schedule = dataclasses.replace(schedule, prediction_type="v_prediction", rescale_betas_zero_snr=True)
  unet = dataclasses.replace(tiny.unet, **temporal)
  model = dataclasses.replace(tiny, unet=unet, controlnet=branch, refiner=refiner, schedule=schedule)
  clip_frames = min(config.data.clip_frames, 2)
  data = dataclasses.replace(config.data, batch_size=batch_size, crop=8 * model.scale, clip_frames=clip_frames)
  return dataclasses.replace(config, model=model, data=data, dtype="float32")


def drawn_run(config: RunConfig, seed: int = 0):
  """(networks, weights, batch) of a shrunk config, all drawn, nothing compiled."""
  networks = Networks(config.model)
  weights = drawn_weights(networks, seed)
  rng = np.random.default_rng(seed)

  def draw(name, like):
    if like.dtype != np.uint8:
      return rng.normal(size=like.shape).astype(np.float32)
    drawn = rng.integers(0, 256, like.shape).astype(np.uint8)
    if name == "surface":
      drawn[..., 0] = rng.choice([chart("none"), chart("chest"), chart("nose")], like.shape[:-1])
    return drawn

  shapes = batch_shapes(config, 8 * config.model.scale)
  return networks, weights, {side: {name: draw(name, like) for name, like in shapes[side].items()} for side in shapes}
