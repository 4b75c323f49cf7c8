"""Basic layers: dense, convolution per frame, group norm over clips, residual block, time embedding, resampling."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Bool, Float, Shaped
from anchor_jax.models.attention import RESIDUALS

_PRODUCTS = "products"  # checkpoint name of the results of convolutions and matrix products with kernels

Initializer = Callable[..., Array]
_zeros = nn.initializers.zeros_init()


class Dense(nn.Module):
  """Dense layer over the last axis.

  Attributes:
    features: output channels.
    use_bias: whether there is a bias.
    kernel_init: initializer of the kernel.
    dtype: of the computation; the parameters are float32.
  """

  features: int
  use_bias: bool = True
  kernel_init: Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any {self.features}"]:
    return self.split_outputs(x, 1)[0]

  @nn.nowrap
  def split_outputs(self, x: Float[Array, "*any D"], count: int) -> list[Float[Array, "*any _"]]:
    """The output as `count` arrays of equal width; the kernel is split, not the product."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    kernel = sharding.all_gather_kernel(kernel.astype(self.dtype), (*self.path, "kernel"))
    columns = jnp.split(kernel, count, axis=1)
    outputs = [jax.lax.dot_general(x.astype(self.dtype), own, (((x.ndim - 1,), (0,)), ((), ()))) for own in columns]
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32).astype(self.dtype)
      outputs = [y + own for y, own in zip(outputs, jnp.split(bias, count), strict=True)]
    return [checkpoint_name(y, _PRODUCTS) for y in outputs]


class SplitDense(Dense):
  """Dense whose kernel is split before the matmul, for gated units.

  Returns two arrays of features / 2 channels. Splitting afterwards would reshuffle tensor-sharded channels.
  """

  @nn.compact
  def __call__(self, x: Float[Array, "*any D"]) -> list[Float[Array, "*any _"]]:  # pyright: ignore[reportIncompatibleMethodOverride]
    return self.split_outputs(x, 2)


class Conv(nn.Module):
  """2D convolution applied to each frame.

  Attributes:
    features: output channels.
    kernel_size: side of the square kernel.
    stride: in height and width.
    padding: zeros (before, after), the same for height and width.
    kernel_init: initializer of the kernel.
    use_bias: whether there is a bias.
    fold: side of the input's patches (`to_patches`); the output's is `fold // stride`. 1 is pixels; larger ones need a
      3x3 kernel and padding of 1, see `fold_kernel`.
    dtype: of the computation; the parameters are float32.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: tuple[int, int] = (1, 1)
  kernel_init: Initializer = nn.initializers.lecun_normal()
  use_bias: bool = True
  fold: int = 1
  dtype: DTypeLike = jnp.float32

  @property
  def out_features(self) -> int:
    """Channels of the output, including the pixels of a patch."""
    return self.features if self.fold == 1 else self.features * (self.fold // self.stride) ** 2

  @nn.compact
  def __call__(self, x: Float[Array, "*frames H W C"]) -> Float[Array, "*frames h w {self.out_features}"]:
    size, channels = self.kernel_size, x.shape[-1] // self.fold**2
    kernel = self.param("kernel", self.kernel_init, (size, size, channels, self.features), jnp.float32)
    kernel = sharding.all_gather_kernel(kernel.astype(self.dtype), (*self.path, "kernel"))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32) if self.use_bias else None
    return self.convolve(x, kernel, bias)

  def convolve(
    self, x: Float[Array, "*frames H W C"], kernel: Float[Array, "h w _ O"], bias: Float[Array, " O"] | None
  ) -> Float[Array, "*frames _ _ {self.out_features}"]:
    """The output for these parameters."""
    if self.fold == 1:
      return convolve(x, kernel, bias, self.stride, self.padding, self.dtype)
    if bias is not None:
      bias = jnp.tile(bias, (self.fold // self.stride) ** 2)
    return convolve(x, fold_kernel(kernel, self.fold, self.stride), bias, 1, (1, 1), self.dtype)


def convolve(
  x: Float[Array, "*frames H W C"],
  kernel: Float[Array, "h w C O"],
  bias: Float[Array, " O"] | None,
  stride: int,
  padding: tuple[int, int],
  dtype: DTypeLike,
) -> Float[Array, "*frames _ _ O"]:
  """2D convolution of each frame with this kernel and bias, computed in `dtype`; `padding` is (before, after)."""
  y = jax.lax.conv_general_dilated(
    x.reshape(-1, *x.shape[-3:]).astype(dtype),
    kernel.astype(dtype),
    (stride, stride),
    [padding, padding],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  if bias is not None:
    y = y + bias.astype(dtype)
  return checkpoint_name(y, _PRODUCTS).reshape(*x.shape[:-3], *y.shape[1:])


def fold_kernel(kernel: Float[Array, "3 3 C O"], side: int, stride: int) -> Float[Array, "3 3 D P"]:
  """The kernel that does to patches of `side` x `side` pixels, stored as channels, what `kernel` does to pixels.

  Pictures with few channels fill an eighth of a matrix unit's lanes, patches all of them. Most of the new kernel is
  zero.

  Args:
    kernel: of a convolution with padding 1.
    side: of the input's patches, a multiple of `stride`.
    stride: of that convolution, 1 or 2; the output's patches have a side of `side // stride`.
  """
  patch, pixel_in, pixel_out = np.arange(-1, 2), np.arange(side), np.arange(side // stride)
  tap = side * patch[:, None, None] + pixel_in[:, None] - stride * pixel_out + 1  # connects an input to an output pixel
  tap = np.where((tap >= 0) & (tap < 3), tap, 3)  # 3: not connected, a zero
  padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
  folded = padded[tap[:, :, :, None, None, None], tap]  # [patch, row, new row, patch, column, new column, C, O]
  channels, features = kernel.shape[2:]
  folded = folded.transpose(0, 3, 1, 4, 6, 2, 5, 7)
  return folded.reshape(3, 3, side * side * channels, len(pixel_out) ** 2 * features)


def convolve_doubled(
  x: Float[Array, "*frames H W C"], kernel: Float[Array, "3 3 C O"], bias: Float[Array, " O"] | None
) -> Float[Array, "*frames 2*H 2*W O"]:
  """A 3x3 convolution, padding 1, of the nearest-neighbor doubled input, without materializing the doubled input.

  Two of three neighboring cells of the doubled input are the same cell, so each of the four positions within a doubled
  cell has a 2x2 kernel of sums: 16 products for each cell and pair of channels instead of 36.
  """
  cells = x.reshape(-1, *x.shape[-3:])
  fold = lambda taps: ((taps[0], taps[1] + taps[2]), (taps[0] + taps[1], taps[2]))  # for even and odd positions
  rows = []
  for row, row_taps in enumerate(fold(kernel)):
    taps = [fold(line) for line in row_taps]  # [2 row taps][2 columns][2 column taps]
    kernels = [jnp.stack([jnp.stack(line[column]) for line in taps]) for column in (0, 1)]
    paddings = [[(1 - row, row), (1 - column, column)] for column in (0, 1)]
    columns = [
      jax.lax.conv_general_dilated(cells, small, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
      for small, padding in zip(kernels, paddings)
    ]
    rows.append(jnp.stack(columns, axis=3))
  y = jnp.stack(rows, axis=2)  # [frames H 2 W 2 O]
  if bias is not None:
    y = y + bias
  return y.reshape(*x.shape[:-3], 2 * x.shape[-3], 2 * x.shape[-2], kernel.shape[-1])


class DoublingConv(Conv):
  """Conv of the nearest-neighbor doubled input, see `convolve_doubled`; has the parameters of `Conv`."""

  def convolve(
    self, x: Float[Array, "*frames H W C"], kernel: Float[Array, "h w C O"], bias: Float[Array, " O"] | None
  ) -> Float[Array, "*frames _ _ O"]:
    """The output for these parameters; in a program for several platforms, only CPUs avoid the doubled input."""
    doubled = lambda x, kernel, *bias: convolve(
      jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2), kernel, bias[0] if bias else None, 1, (1, 1), self.dtype
    )
    small = lambda x, kernel, *bias: convolve_doubled(x, kernel, bias[0] if bias else None)
    return sharding.by_platform(small, doubled, x, kernel, *(() if bias is None else (bias,)))


class GroupNorm(nn.Module):
  """Group normalization of clips (Wu and He 2018), statistics in float32.

  Attributes:
    groups: number of channel groups.
    epsilon: added to the variance; no default, because diffusers uses 1e-5 in residual blocks and 1e-6 in transformers.
    pool_frames: whether statistics pool over all frames of a clip, as in a 3D network, or are per frame.
    dtype: of the result.
  """

  groups: int
  epsilon: float
  pool_frames: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T H W C"], frame_mask: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T H W C"]:
    """The normalized input; frames where `frame_mask` is False are excluded from pooled statistics."""
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
    y = x.astype(jnp.float32)
    pooled = self.pool_frames and x.shape[1] > 1

    def group_mean(values: Array) -> Array:
      # The mean over pixels, (frames,) and the channels of a group, in a shape that broadcasts against the input.
      means = values.mean((2, 3))
      if pooled and frame_mask is not None:
        weights = frame_mask.astype(jnp.float32)[..., None]
        means = (means * weights).sum(1, keepdims=True) / jnp.maximum(weights.sum(1, keepdims=True), 1)
      elif pooled:
        means = means.mean(1, keepdims=True)
      grouped = means.reshape(*means.shape[:2], self.groups, -1).mean(-1)
      return jnp.repeat(grouped, channels // self.groups, axis=-1)[:, :, None, None]

    mean = group_mean(y)
    if _sixteen_bits(x.dtype):
      # One pass over the input: on a TPU, passes are what a normalization costs. Cancellation in float32 is far below
      # the rounding of such inputs, unless the mean is hundreds of times the standard deviation.
      variance = jnp.maximum(group_mean(jnp.square(y)) - jnp.square(mean), 0)
      factor = jax.lax.rsqrt(variance + self.epsilon) * scale
      return (y * factor + (bias - mean * factor)).astype(self.dtype)
    centered = y - mean
    variance = group_mean(jnp.square(centered))
    return (centered * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias).astype(self.dtype)


class InflatedConv(nn.Module):
  """A (t, 3, 3) convolution, stored as the middle tap `kernel` (3, 3, C, O) and the others `taps` (t-1, 3, 3, C, O).

  `kernel` has the 2D network's name and shape, so that its checkpoints load. Frames beyond the ends of a clip, and
  frames where `frame_mask` is False, count as zero.

  Attributes:
    features: output channels.
    frames: t, the temporal extent, odd.
    dtype: of the computation.
  """

  features: int
  frames: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T H W C"], frame_mask: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T H W {self.features}"]:
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    taps = self.param("taps", _zeros, (self.frames - 1, *shape), jnp.float32)
    bias = self.param("bias", _zeros, (self.features,), jnp.float32)
    kernel = sharding.all_gather_kernel(kernel.astype(self.dtype), (*self.path, "kernel"))
    taps = sharding.all_gather_kernel(taps.astype(self.dtype), (*self.path, "taps"))
    y = convolve(x, kernel, bias, 1, (1, 1), self.dtype)
    if x.shape[1] == 1:  # the other taps would see only zeros
      return y
    masked = x if frame_mask is None else jnp.where(frame_mask[:, :, None, None, None], x, 0)
    half = self.frames // 2
    padded = jnp.pad(masked, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
    shifted = [padded[:, i : i + x.shape[1]] for i in range(self.frames) if i != half]
    # Added after the 2D convolution, so that zero taps do not change a bit of its result.
    return y + convolve(
      jnp.concatenate(shifted, axis=-1), jnp.concatenate([*taps], axis=2), None, 1, (1, 1), self.dtype
    )


class ResBlock(nn.Module):
  """Two GroupNorm-SiLU-Conv layers with a time embedding between them; a frame is a clip with T = 1.

  GroupNorm statistics pool over frames; frames where `frame_mask` is False are excluded from them.

  Attributes:
    features: output channels.
    groups: of the normalizations.
    epsilon: of the normalizations; 1e-5 in the UNet, 1e-6 in the autoencoder.
    temporal_kernel: temporal extent in frames of the 3x3 convolutions, odd; 1 for 2D convolutions.
    dtype: of the computation.
  """

  features: int
  groups: int
  epsilon: float = 1e-5
  temporal_kernel: int = 1
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T H W C"],
    time_embedding: Float[Array, "B D"] | None = None,
    frame_mask: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T H W {self.features}"]:
    def convolution(name: str, h: Array) -> Array:
      if self.temporal_kernel == 1:
        return Conv(self.features, dtype=self.dtype, name=name)(h)
      return InflatedConv(self.features, self.temporal_kernel, dtype=self.dtype, name=name)(h, frame_mask)

    h = GroupNorm(self.groups, self.epsilon, dtype=self.dtype, name="norm1")(x, frame_mask)
    h = convolution("conv1", nn.silu(h))
    if time_embedding is not None:
      shift = Dense(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(time_embedding))
      h = h + shift[:, None, None, None]
    h = GroupNorm(self.groups, self.epsilon, dtype=self.dtype, name="norm2")(h, frame_mask)
    h = convolution("conv2", nn.silu(h))
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, padding=(0, 0), dtype=self.dtype, name="conv_shortcut")(x)
    return x + h


def layer_norm(epsilon: float, dtype: DTypeLike, name: str | None = None) -> nn.LayerNorm:
  """LayerNorm with statistics in float32; the variance takes two passes, as in torch, or one for 16-bit types."""
  return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=_sixteen_bits(dtype), name=name)


def _sixteen_bits(dtype: DTypeLike) -> bool:
  return jnp.dtype(dtype).itemsize == 2


def timestep_features(
  timesteps: Shaped[Array, " B"], features: int, flip_sin_to_cos: bool = True, shift: int | float = 0
) -> Float[Array, "B {features}"]:
  """Sinusoidal features of the timestep (Vaswani et al. 2017, section 3.5), wavelengths 2 pi to 20000 pi; float32.

  Args:
    timesteps: integer or float.
    features: number of features, even.
    flip_sin_to_cos: whether the cosines come first.
    shift: subtracted from features / 2 in the denominator of the exponents (diffusers' freq_shift).
  """
  half = features // 2
  # In NumPy, so that frequencies are the same on every backend: one ulp here shifts the angle at t = 1000 by 1e-4.
  exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half - shift)
  angles = timesteps.astype(jnp.float32)[:, None] * np.exp(exponents)[None]
  parts = [jnp.sin(angles), jnp.cos(angles)]
  return jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, axis=-1)


class TimestepEmbedding(nn.Module):
  """Time embedding of `features` channels: two dense layers with a SiLU in between, applied to `timestep_features`."""

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B {self.features}"]:
    x = Dense(self.features, dtype=self.dtype, name="linear_1")(x)
    return Dense(self.features, dtype=self.dtype, name="linear_2")(nn.silu(x))


class Downsample(nn.Module):
  """Halves height and width by a 3x3 convolution with stride 2.

  As in diffusers, the UNet pads one cell on all sides, the autoencoder only after the last row and column.
  """

  features: int
  padding: tuple[int, int] = (1, 1)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w {self.features}"]:
    return Conv(self.features, stride=2, padding=self.padding, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
  """Nearest-neighbor upsampling to `size` (by default twice the input's), then a 3x3 convolution.

  `size` is (height, width); it is one less than twice the input's where the down path halved an odd size.
  """

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T h w C"], size: tuple[int, int] | None = None
  ) -> Float[Array, "B T H W {self.features}"]:
    height, width = x.shape[2:4]
    # Accelerators, and 16-bit types, whose sums of taps would round, take the doubled array.
    on_cpu = sharding.platform() == "cpu" or sharding.exporting()
    if size in (None, (2 * height, 2 * width)) and on_cpu and self.dtype == jnp.float32:
      return DoublingConv(self.features, dtype=self.dtype, name="conv")(x)
    x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
    if size is not None and size != (2 * height, 2 * width):
      # torch's nearest rule takes input cell floor(i * input / output), at twice that index in the doubled array.
      rows = 2 * (np.arange(size[0]) * height // size[0])
      columns = 2 * (np.arange(size[1]) * width // size[1])
      x = x[:, :, rows][:, :, :, columns]
    return Conv(self.features, dtype=self.dtype, name="conv")(x)


def to_patches(x: Float[Array, "*B H W C"], side: int) -> Float[Array, "*B h w D"]:
  """Space to depth: the pixels of each patch of `side` x `side` pixels as channels."""
  *batch, height, width, channels = x.shape
  x = x.reshape(math.prod(batch), height // side, side, width // side, side, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(*batch, height // side, width // side, side * side * channels)


def from_patches(x: Float[Array, "B h w D"], side: int) -> Float[Array, "B H W C"]:
  """Depth to space, the inverse of `to_patches`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, side, side, channels // side**2)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, channels // side**2)


def gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """The exact GELU (error function), as in torch; JAX's default is the tanh approximation."""
  return nn.gelu(x, approximate=False)


def quick_gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """CLIP's approximation of GELU, x * sigmoid(1.702 x)."""
  return x * nn.sigmoid(1.702 * x)


def rematerialized(module: type[nn.Module], remat: bool | str) -> type[nn.Module]:
  """`module` wrapped in `nn.remat`: the backward pass recomputes its activations; parameter names do not change.

  Args:
    module: class to wrap.
    remat: what to save. False returns `module` itself; True saves nothing; "attention" saves the residuals of fused
      attention kernels (the output and one number per query), so that they run once; "products" also saves the results
      of convolutions and dense layers, so that only cheap operations are recomputed, for more memory; any other string
      names a policy in `jax.checkpoint_policies`.

  Raises:
    UserError: no policy has that name.
  """
  if not remat:
    return module
  if remat is True:
    return nn.remat(module)
  saved = {"attention": (RESIDUALS,), _PRODUCTS: (RESIDUALS, _PRODUCTS)}
  if remat in saved:
    return nn.remat(module, policy=jax.checkpoint_policies.save_only_these_names(*saved[remat]))
  policy = getattr(jax.checkpoint_policies, remat, None)
  if policy is None:
    raise UserError(f"no remat policy is named {remat!r}.{suggestion(remat, (*saved, *dir(jax.checkpoint_policies)))}")
  return nn.remat(module, policy=policy)
