"""CLIP's image and text towers (Radford et al. 2021) up to the last hidden states, which the UNet cross-attends to.

`CLIPVision.embed` also computes the embedding of a picture, for measuring the similarity of pictures.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig
from anchor_jax.core.shapes import Array, Float, Int
from anchor_jax.models.attention import attention
from anchor_jax.models.layers import Conv, Dense, gelu, layer_norm, quick_gelu

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_normal = nn.initializers.normal(0.02)


def preprocess(images: Float[Array, "B H W 3"], size: int = 224) -> Float[Array, "B {size} {size} 3"]:
  """Pixels as CLIP's image tower expects them: bicubic resize of the shorter side, center crop, normalization.

  Args:
    images: RGB in [0, 1].
    size: the tower's `image_size`, pixels.

  Returns:
    (x - MEAN) / DEVIATION per channel. Before normalization it differs from CLIP's Pillow code by at most one of 255
    gray levels.
  """
  count, height, width, channels = images.shape
  short = min(height, width)
  # Like Pillow: rounds the longer side down, resizes the width first, and rounds each pass to 8 bits.
  tall, wide = size * height // short, size * width // short
  x = images
  for shape in ((count, height, wide, channels), (count, tall, wide, channels)):
    x = jax.image.resize(x, shape, "bicubic", antialias=True)
    x = jnp.round(jnp.clip(x, 0, 1) * 255) / 255
  height, width = tall, wide
  top, left = (height - size) // 2, (width - size) // 2
  x = x[:, top : top + size, left : left + size]
  return (x - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(DEVIATION, x.dtype)


class SelfAttention(nn.Module):
  """Multi-head self-attention with biases in all projections; `causal` masks later tokens."""

  heads: int
  causal: bool
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    def project(name: str) -> Array:
      return Dense(x.shape[-1], dtype=self.dtype, name=name)(x).reshape(*x.shape[:2], self.heads, -1)

    out = attention(project("q_proj"), project("k_proj"), project("v_proj"), causal=self.causal)
    return Dense(x.shape[-1], dtype=self.dtype, name="out_proj")(out.reshape(x.shape))


class MLP(nn.Module):
  """Feed-forward layer of `features` hidden channels; `activation` is "quick_gelu" or "gelu"."""

  features: int
  activation: str
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    activation = quick_gelu if self.activation == "quick_gelu" else gelu
    h = activation(Dense(self.features, dtype=self.dtype, name="fc1")(x))
    return Dense(x.shape[-1], dtype=self.dtype, name="fc2")(h)


class TowerLayer(nn.Module):
  """Pre-norm transformer layer: self-attention, then feed-forward, each with a residual connection."""

  config: CLIPVisionConfig | CLIPTextConfig
  causal: bool
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.layer_norm1 = layer_norm(config.layer_norm_eps, dtype)
    self.self_attn = SelfAttention(config.num_attention_heads, self.causal, dtype)
    self.layer_norm2 = layer_norm(config.layer_norm_eps, dtype)
    self.mlp = MLP(config.intermediate_size, config.hidden_act, dtype)

  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    x = x + self.self_attn(self.layer_norm1(x))
    return x + self.mlp(self.layer_norm2(x))


class TowerEncoder(nn.Module):
  """The stack of transformer layers of a tower."""

  config: CLIPVisionConfig | CLIPTextConfig
  causal: bool
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    self.layers = [TowerLayer(self.config, self.causal, self.dtype) for _ in range(self.config.num_hidden_layers)]

  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    for layer in self.layers:
      x = layer(x)
    return x


class VisionEmbeddings(nn.Module):
  """A class token followed by one token per patch, plus position embeddings."""

  config: CLIPVisionConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config = self.config
    self.class_embedding = self.param("class_embedding", _normal, (config.hidden_size,), jnp.float32)
    self.patch_embedding = Conv(
      config.hidden_size, config.patch_size, config.patch_size, (0, 0), use_bias=False, dtype=self.dtype
    )
    self.position_embedding = nn.Embed(config.tokens, config.hidden_size, embedding_init=_normal, dtype=self.dtype)

  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    patches = self.patch_embedding(pixels)
    patches = patches.reshape(patches.shape[0], -1, patches.shape[-1])
    first = jnp.broadcast_to(self.class_embedding.astype(patches.dtype), (patches.shape[0], 1, patches.shape[-1]))
    x = jnp.concatenate([first, patches], axis=1)
    return x + self.position_embedding(jnp.arange(x.shape[1]))


class VisionTransformer(nn.Module):
  """The image tower. `post_layernorm`, which checkpoints hold, is applied only by `pooled`, to the class token."""

  config: CLIPVisionConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.embeddings = VisionEmbeddings(config, dtype)
    self.pre_layrnorm = layer_norm(config.layer_norm_eps, dtype)  # spelled as in the checkpoints
    self.encoder = TowerEncoder(config, False, dtype)
    self.post_layernorm = layer_norm(config.layer_norm_eps, dtype)

  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
    if self.is_initializing():
      self.post_layernorm(x[:, 0])
    return x

  def pooled(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
    """The last hidden state of the class token, normalized by `post_layernorm`."""
    return self.post_layernorm(self(pixels)[:, 0])


class CLIPVision(nn.Module):
  """Image tokens of a picture: the image tower's last hidden states.

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: CLIPVisionConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    self.vision_model = VisionTransformer(self.config, self.dtype)

  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    """The last hidden states before the final layer norm, class token first, float32.

    Args:
      pixels: output of `preprocess`, `config.image_size` square.

    Returns:
      N = `config.tokens` tokens of D = `config.hidden_size` features.
    """
    return self.vision_model(pixels).astype(jnp.float32)

  def embed(self, pixels: Float[Array, "B H W 3"], projection: Float[Array, "E D"]) -> Float[Array, "B E"]:
    """CLIP embeddings of pictures, of length one; their dot products are CLIP's similarities.

    Args:
      pixels: output of `preprocess`.
      projection: `visual_projection.weight` of the model, which is not part of the tower.
    """
    embedding = self.vision_model.pooled(pixels).astype(jnp.float32) @ projection.T
    return embedding / jnp.linalg.norm(embedding, axis=-1, keepdims=True)


class TextEmbeddings(nn.Module):
  """Token embeddings plus position embeddings."""

  config: CLIPTextConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config = self.config
    self.token_embedding = nn.Embed(config.vocab_size, config.hidden_size, embedding_init=_normal, dtype=self.dtype)
    self.position_embedding = nn.Embed(
      config.max_position_embeddings, config.hidden_size, embedding_init=_normal, dtype=self.dtype
    )

  def __call__(self, ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    return self.token_embedding(ids) + self.position_embedding(jnp.arange(ids.shape[1]))


class TextTransformer(nn.Module):
  """The text tower: causal transformer and final layer norm."""

  config: CLIPTextConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.embeddings = TextEmbeddings(config, dtype)
    self.encoder = TowerEncoder(config, True, dtype)
    self.final_layer_norm = layer_norm(config.layer_norm_eps, dtype)

  def __call__(self, ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class CLIPText(nn.Module):
  """Text tokens of a prompt; only used on the empty prompt, for the null context of guidance.

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: CLIPTextConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    self.text_model = TextTransformer(self.config, self.dtype)

  def __call__(self, ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    """The last hidden states after the final layer norm, float32; `ids` are at most 77 token numbers."""
    return self.text_model(ids).astype(jnp.float32)
