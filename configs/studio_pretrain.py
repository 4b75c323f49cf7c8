r"""Trains the small networks of the package on 1,024 studio people at 128 pixels.

  python -m anchor_jax.prepare --studio=1024 --frames=48 --size=128 --output=data/people
  python -m anchor_jax.train --config=configs/studio_pretrain.py:vae --workdir=runs/pretrain \
    --config.data.path=data/people
  python -m anchor_jax.train --config=configs/studio_pretrain.py:body --workdir=runs/pretrain \
    --config.data.path=data/people
  python -m anchor_jax.train --config=configs/studio_pretrain.py:head --workdir=runs/pretrain \
    --config.data.path=data/people

Run the parts in this order: each starts from the networks of the earlier ones (config.init is the workdir). The body's
run also trains the image tower. In the later runs autoencoder and image tower are frozen.
"""

import ml_collections

from anchor_jax.config.networks import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import DataConfig, ModelConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict

TOKEN_WIDTH = 128
LATENT = 8  # latent channels; with Stable Diffusion's 4, eyes and fingers are lost at this resolution
IMAGE_ENCODER = CLIPVisionConfig(
  hidden_size=TOKEN_WIDTH,
  intermediate_size=256,
  projection_dim=TOKEN_WIDTH,
  num_hidden_layers=2,
  num_attention_heads=4,
  image_size=64,
  patch_size=8,
)


def unet(widths: tuple[int, ...], in_channels: int) -> UNetConfig:
  """A small UNet with one level per width, without attention at the finest level, where windows have most tokens."""
  levels = len(widths)
  return UNetConfig(
    in_channels=in_channels,
    out_channels=LATENT,
    sample_size=32,
    block_out_channels=widths,
    layers_per_block=1,
    down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
    up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
    norm_num_groups=16,
    cross_attention_dim=TOKEN_WIDTH,
    attention_head_dim=tuple(width // 16 for width in widths),
  )


def model(part: str) -> ModelConfig:
  """The networks and noise schedule of a part, "vae", "body" or "head"."""
  body = unet((48, 64, 64), LATENT) if part != "head" else unet((32, 48, 48), 2 * LATENT + 1)
  return ModelConfig(
    unet=body,
    controlnet=ControlNetConfig.from_unet(body, (16, 24, 32)),
    vae=VAEConfig.from_widths(
      (32, 48, 64),
      layers_per_block=1,
      norm_num_groups=16,
      sample_size=128,
      latent_channels=LATENT,
      scaling_factor=1.0,  # the end of training rescales the latents to unit mean square
    ),
    image_encoder=IMAGE_ENCODER,
    refiner=RefinerConfig() if part == "body" else None,
    schedule=ScheduleConfig(
      prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, set_alpha_to_one=True
    ),
  )


def get_config(part: str = "body") -> ml_collections.ConfigDict:
  """The settings of the run for one part, "vae", "body" or "head"."""
  steps = {"vae": 8000, "body": 12000, "head": 8000}.get(part, 0)
  return to_config_dict(
    RunConfig(
      part=part,
      init="" if part == "vae" else "runs/pretrain",
      steps=steps,
      dtype="bfloat16",
      train_image_encoder=part == "body",
      log_every=100,
      checkpoint_every=2000,
      preview_every=1000,
      condition_jitter=1,
      detail_weight=4.0 if part == "body" else 1.0,
      sharpness=1.0 if part == "body" else 0.0,
      model=model(part),
      data=DataConfig(
        batch_size=64 if part == "vae" else 128,
        crop=64,
        in_memory=True,
        cache=part == "head",
        pose_channels="full" if part == "body" else "",
      ),
      optimizer=OptimizerConfig(
        learning_rate=1e-3 if part == "vae" else 5e-4,
        schedule="cosine" if part == "vae" else "constant",  # averaging the weights replaces decaying the rate
        warmup_steps=500,
        ema=0.999,
      ),
      sample=SAMPLE[part],
    )
  )


# Few steps of a second-order solver, without guidance. Windows are half as long as the reference's: on a CPU, all-frame
# attention over 16 frames costs more than everything else.
SAMPLE = {
  "vae": SampleConfig(),
  "body": SampleConfig("dpm++2m", steps=4, window=8, overlap=2, guidance=1.0, conditioning_scale=1.0),
  "head": SampleConfig(
    "dpm++2m", steps=5, window=1, overlap=0, guidance=1.0, conditioning_scale=1.0, windows_per_batch=16
  ),
}
