"""The pose branch (ControlNet; Zhang et al. 2023), and the UNet that it steers as one module, the denoiser."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array, Bool, Float, PyTree, Shaped
from anchor_jax.models.layers import Conv, TimestepEmbedding, timestep_features, to_patches
from anchor_jax.models.unet import MiddleBlock, UNet, down_stages

_zeros = nn.initializers.zeros_init()

RENDER_CHANNELS = 3
COORDINATE_CHANNELS = 6  # pose channels of a branch that takes each pixel's coordinates on the body
_FOLD = 4  # side of the stem's first patches on TPUs; results/tpu-block.jsonl


class StemConv(Conv):
  """Conv that convolves the pose render and the pose channels separately, with one kernel, and adds the results.

  So pose channels whose weights are zero do not change a bit of the output; one convolution over all channels would sum
  in another order. Where the input comes in patches, those of the render precede those of the pose channels.
  """

  def convolve(
    self, x: Float[Array, "*frames H W C"], kernel: Float[Array, "h w _ O"], bias: Float[Array, " O"] | None
  ) -> Float[Array, "*frames _ _ {self.out_features}"]:
    of_render = RENDER_CHANNELS * self.fold**2
    y = super().convolve(x[..., :of_render], kernel[:, :, :RENDER_CHANNELS], bias)
    if x.shape[-1] > of_render:
      y += super().convolve(x[..., of_render:], kernel[:, :, RENDER_CHANNELS:], None)
    return y


class PoseStem(nn.Module):
  """Convolutions that downsample a pose render to the latents' resolution; the last one is initialized to zero.

  Pose channels may follow the render's three, see `texture/look_up/plain.py`.

  Attributes:
    features: output channels, the first width of the network.
    widths: hidden channels at each resolution; the resolution is halved len(widths) - 1 times.
    dtype: of the computation.
  """

  features: int
  widths: tuple[int, ...]
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    # Large pictures with few channels leave most of a TPU's matrix unit idle and most lanes of its memory empty.
    fold = self.fold = min(_FOLD, 2 ** (len(self.widths) - 1)) if sharding.platform() == "tpu" else 1
    self.conv_in = StemConv(self.widths[0], fold=fold, dtype=self.dtype)
    blocks = []
    for before, after in zip(self.widths, self.widths[1:], strict=False):
      blocks += [Conv(before, fold=fold, dtype=self.dtype), Conv(after, stride=2, fold=fold, dtype=self.dtype)]
      fold = max(fold // 2, 1)
    self.blocks = blocks
    self.conv_out = Conv(self.features, kernel_init=_zeros, dtype=self.dtype)

  def __call__(self, pose: Float[Array, "B T h w C"]) -> Float[Array, "B T H W {self.features}"]:
    if self.fold > 1:
      parts = (pose[..., :RENDER_CHANNELS], pose[..., RENDER_CHANNELS:])
      pose = jnp.concatenate([to_patches(part, self.fold) for part in parts], axis=-1)
    x = nn.silu(self.conv_in(pose))
    for block in self.blocks:
      x = nn.silu(block(x))
    return self.conv_out(x)


class ControlNet(nn.Module):
  """Residuals for the UNet's skip features and its middle block, from noisy latents and a pose.

  Self-attention is per frame; GroupNorm in residual blocks pools over frames, as in the UNet. Each residual is the
  output of a 1x1 convolution initialized to zero, so that a new branch does not change the UNet's output.

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: ControlNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.time_embedding = TimestepEmbedding(config.time_embedding_dim, dtype)
    self.conv_in = Conv(config.block_out_channels[0], dtype=dtype)
    self.controlnet_cond_embedding = PoseStem(
      config.block_out_channels[0], config.conditioning_embedding_out_channels, dtype
    )
    self.down_blocks = down_stages(config, dtype)
    self.mid_block = MiddleBlock(config, dtype)

    def zero_projection(channels: int) -> Conv:
      return Conv(channels, 1, padding=(0, 0), kernel_init=_zeros, dtype=dtype)

    self.controlnet_down_blocks = [zero_projection(channels) for channels in config.skip_channels]
    self.controlnet_mid_block = zero_projection(config.block_out_channels[-1])

  def embed_pose(self, pose: Float[Array, "B T h w C"]) -> Float[Array, "B T H W C0"]:
    """Pose features, added to the input convolution's output; independent of the timestep, so computed once per clip.

    Args:
      pose: RGB renders in [0, 1]; height and width are `config.stem_stride` times the latents'. The pose channels of
        `texture/look_up/plain.py` follow if `config.conditioning_channels` is more than 3.

    Raises:
      ValueError: the number of channels differs from the config's.
    """
    if pose.shape[-1] != self.config.conditioning_channels:
      raise ValueError(f"the pose branch takes {self.config.conditioning_channels} channels, not {pose.shape[-1]}")
    if self.config.controlnet_conditioning_channel_order == "bgr":
      pose = jnp.concatenate([pose[..., RENDER_CHANNELS - 1 :: -1], pose[..., RENDER_CHANNELS:]], axis=-1)
    return self.controlnet_cond_embedding(pose)

  def __call__(
    self,
    sample: Float[Array, "B T H W C"],
    timesteps: Shaped[Array, " B"],
    context: Float[Array, "B N D"],
    pose_features: Float[Array, "B T H W C0"],
    frame_mask: Bool[Array, "B T"] | None = None,
    scale: int | float | Float[Array, ""] = 1.0,
  ) -> tuple[tuple[Array, ...], Array]:
    """(residuals of the skip features, finest first; residual of the middle block), multiplied by `scale`.

    Args:
      sample: noisy latents, without the inpainting channels of the head.
      timesteps: one per clip, 0 to num_train_timesteps - 1.
      context: image tokens.
      pose_features: output of `embed_pose`.
      frame_mask: False for padded frames. None: no padding.
      scale: conditioning scale; 0 disables the pose.
    """
    config = self.config
    if self.is_initializing():  # creates the parameters of the stem, which __call__ does not use
      stride = config.stem_stride
      shape = (*sample.shape[:2], sample.shape[2] * stride, sample.shape[3] * stride, config.conditioning_channels)
      self.embed_pose(jnp.zeros(shape))
    emb = timestep_features(timesteps, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
    emb = self.time_embedding(emb)
    x = self.conv_in(sample) + pose_features
    features = [x]
    for block in self.down_blocks:
      x, of_block = block.down(x, time_embedding=emb, context=context, frame_mask=frame_mask)
      features += of_block
    x = self.mid_block(x, time_embedding=emb, context=context, frame_mask=frame_mask)
    exits = zip(self.controlnet_down_blocks, features, strict=True)
    return tuple(project(skip) * scale for project, skip in exits), self.controlnet_mid_block(x) * scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrameInputs:
  """What the denoiser takes for each frame besides its noisy latent. A pytree.

  Attributes:
    pose_features: output of `embed_pose`, [... H W C0] at the latents' resolution.
    inpainting: for the head, the mask (1 keep, 0 repaint) followed by the latents of the masked image, [... H W 1+C];
      only the UNet takes them. None for the body.
  """

  pose_features: PyTree
  inpainting: PyTree = None


class Denoiser(nn.Module):
  """The UNet's prediction for noisy latents, given image tokens and a pose; serves body and head.

  Its tree of parameters is {"unet", "controlnet"}.

  Attributes:
    unet_config, controlnet_config: the two architectures.
    dtype: of the computation.
  """

  unet_config: UNetConfig
  controlnet_config: ControlNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    self.unet = UNet(self.unet_config, self.dtype)
    self.controlnet = ControlNet(self.controlnet_config, self.dtype)

  def embed_pose(self, pose: Float[Array, "B T h w C"]) -> Float[Array, "B T H W C0"]:
    """Pose features of pose renders in [0, 1]; see `ControlNet.embed_pose`."""
    return self.controlnet.embed_pose(pose)

  def __call__(
    self,
    latents: Float[Array, "B T H W C"],
    timesteps: Shaped[Array, " B"],
    context: Float[Array, "B N D"],
    frame_inputs: FrameInputs,
    frame_mask: Bool[Array, "B T"] | None = None,
    conditioning_scale: int | float | Float[Array, ""] = 1.0,
  ) -> Float[Array, "B T H W C"]:
    """The prediction of noise, velocity or clean latents (the schedule's `prediction_type`), float32.

    Args:
      latents: noisy latents, scaled.
      timesteps: one per clip, 0 to num_train_timesteps - 1.
      context: image tokens.
      frame_inputs: pose features, and for the head the inpainting channels; leading axes [B T].
      frame_mask: False for padded frames. None: no padding.
      conditioning_scale: multiplies the pose branch's residuals.
    """
    down, middle = self.controlnet(
      latents, timesteps, context, frame_inputs.pose_features, frame_mask, scale=conditioning_scale
    )
    sample = latents
    if frame_inputs.inpainting is not None:
      sample = jnp.concatenate([latents, frame_inputs.inpainting.astype(latents.dtype)], axis=-1)
    return self.unet(sample, timesteps, context, frame_mask, down, middle)


def fit_stem(params: PyTree, channels: int, same: int | None = None) -> PyTree:
  """Parameters of a pose branch adapted to another number of input channels.

  The weights of added channels are zero: outputs stay equal bit for bit, whatever finite values the channels hold.
  Without the weights of dropped channels, outputs are those of a branch whose dropped channels are zero.

  Args:
    params: of `ControlNet`; not changed. NumPy arrays stay on the host.
    channels: `conditioning_channels` of the new configuration; at least the pose render's 3.
    same: how many leading channels mean the same in both configurations; None: all.
  """
  stem = params["controlnet_cond_embedding"]
  kernel = stem["conv_in"]["kernel"][:, :, : channels if same is None else min(same, channels)]
  pad = np.pad if isinstance(kernel, np.ndarray) else jnp.pad
  fitted = pad(kernel, ((0, 0), (0, 0), (0, channels - kernel.shape[2]), (0, 0)))
  return {**params, "controlnet_cond_embedding": {**stem, "conv_in": {**stem["conv_in"], "kernel": fitted}}}
