"""A trained part of a person, body or head: networks and weights, and the weights on the devices that sample."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.run import RunConfig, SampleConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import NdArray, PyTree, UInt8
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.inference.reference import Reference
from anchor_jax.models.networks import Networks
from anchor_jax.store.light import LIGHT, LightDecoder
from anchor_jax.texture.channels import PoseChannels, make_pose_channels, needs_texture
from anchor_jax.texture.stored import Texture

_CAST = ("kernel", "taps")  # names of the parameters that every layer multiplies by in its compute type


@dataclasses.dataclass(frozen=True)
class Part:
  """A trained part of a person.

  Attributes:
    config: the settings it was trained with.
    networks: the modules.
    weights: one tree of all networks, on the host in the precision in which it is stored.
    sample: how it samples.
    size: side of its pictures (the head's: of its face crops) in pixels.
    step: of the training.
    reference_image: a reference picture kept while training; None where weights come without one.
    texture: texture, key frames and room of the person, where config.data.appearance needs them; None where
      weights come without a person.
  """

  config: RunConfig
  networks: Networks
  weights: PyTree
  sample: SampleConfig
  size: int
  step: int
  reference_image: UInt8[NdArray, "H W 3"] | None
  texture: Texture | None = None
  _placed: dict[Any, PyTree] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

  def placed_weights(self, mesh: Any = None) -> PyTree:
    """The weights on a sampling mesh, or on the default device; placed once for each mesh, then reused.

    They are replicated: every device predicts whole windows (or some frames of them), for which it needs all weights,
    and Stable Diffusion's 2.7 GB in bfloat16 fit on one device. Sharding them would cost an all-gather of every kernel
    in every sampling step. Kernels are converted to the compute type; scales, biases and embeddings, which layers use
    in float32, stay as they are. So the results are those of the stored weights, bit for bit.
    """
    if mesh not in self._placed:
      kind = jnp.dtype(self.networks.dtype)
      cast = lambda path, leaf: np.asarray(leaf, kind if path[-1].key in _CAST else None)
      weights = jax.tree_util.tree_map_with_path(cast, self.weights)
      self._placed[mesh] = jax.device_put(weights, None if mesh is None else sharding.replicated(mesh))
    return self._placed[mesh]

  def placed_pose_channels(self, mesh: Any = None, reference: Reference | None = None) -> PoseChannels:
    """The look-up of what the pose branch takes beside the pose render, replicated.

    Args:
      mesh: the devices; None is the default one.
      reference: a film of the person replaces the appearance kept from training, which is placed once for each mesh.
    """
    kind, replicated = self.config.data.appearance, None if mesh is None else sharding.replicated(mesh)
    if reference is not None and reference.gather is not None and needs_texture(kind):
      return jax.device_put(make_pose_channels(kind, reference.texture), replicated)
    place = "conditioning", mesh
    if place not in self._placed:
      self._placed[place] = jax.device_put(make_pose_channels(kind, self.texture), replicated)
    return self._placed[place]

  def with_light_decoder(self, light: LightDecoder) -> "Part":
    """The part with pictures decoded by a light decoder.

    Raises:
      UserError: it was made for another autoencoder.
    """
    light.check(self.weights["vae"])
    networks = dataclasses.replace(self.networks, light=light.config)
    return dataclasses.replace(self, networks=networks, weights={**self.weights, LIGHT: light.params})

  def with_attended_frames(self, count: int) -> "Part":
    """The part whose frames attend to `count` frames of their window (0: all); the placed weights are shared.

    Raises:
      UserError: the count is negative.
    """
    model = self.networks.model
    model = dataclasses.replace(model, unet=dataclasses.replace(model.unet, attended_frames=count))
    part = dataclasses.replace(self, networks=dataclasses.replace(self.networks, model=model))
    part._placed.update(self._placed)
    return part

  def sampler(self, mesh: Any = None) -> Sampler:
    """The sampler of its settings. Raises UserError where one of them is unknown or out of range."""
    return Sampler.of(self.sample, self.networks.model.schedule, mesh)

  def with_sampling(self, **changes: Any) -> "Part":
    """The part with other sampling settings; the placed weights are shared.

    Raises:
      UserError: a setting is unknown or out of range.
    """
    known = [field.name for field in dataclasses.fields(self.sample)]
    for name in changes:
      if name not in known:
        raise UserError(f'unknown sampling setting "{name}".{suggestion(name, known)}')
    part = dataclasses.replace(self, sample=dataclasses.replace(self.sample, **changes))
    part.sampler()
    part._placed.update(self._placed)
    return part
