"""A trained part of a person, body or head: settings, networks and weights, on the host and on the devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.run import RunConfig, SampleConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, PyTree, UInt8
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.formats.roles import LIGHT_DECODER
from anchor_jax.models.networks import Networks
from anchor_jax.store.light import StoredLightDecoder
from anchor_jax.texture.background.film_plate import FilmPlate
from anchor_jax.texture.background.reframe import reframed
from anchor_jax.texture.channels import PoseChannels, make_pose_channels
from anchor_jax.texture.stored import Texture

_CAST = ("kernel", "taps")  # parameters that layers multiply by in their compute type
_DEFAULT_SIZE = 512  # pixels, for autoencoders without a sample size


@dataclasses.dataclass(frozen=True)
class Part:
  """A trained part of a person, with all that sampling needs.

  Attributes:
    config: the settings it was trained with. For diffusers models, which have none, the defaults with the sizes found,
      and data.pose_channels by the number of channels that the pose branch takes.
    networks: modules of config.model's sizes.
    weights: parameters by network, on the host, numpy, float32; adapters are merged in.
    step: optimizer steps of the training; 0 if unknown.
    reference_image: the reference image saved by training, as large as the part's pictures; None if the weights come
      without a person.
    texture: the person's texture, if config.data.pose_channels needs it; None if the weights come without a person.
    film_plate: the background of the full picture of the person's film, if known.
  """

  config: RunConfig
  networks: Networks
  weights: PyTree
  step: int
  reference_image: UInt8[NdArray, "H W 3"] | None
  texture: Texture | None = None
  film_plate: FilmPlate | None = None
  _frames: FrameSize | None = None
  _placed: dict[Any, PyTree] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

  @property
  def sample(self) -> SampleConfig:
    """The sampling settings."""
    return self.config.sample

  @property
  def size(self) -> int | FrameSize:
    """Size of the pictures: the side of squares in pixels, or width and height; see `frame_size`."""
    return self.frame_size.width if self.frame_size.is_square else self.frame_size

  @property
  def frame_size(self) -> FrameSize:
    """Width and height of the pictures; for the head, of the face crops, which are square.

    Models without a training run have the size of the autoencoder's pictures, and half of it for face crops.
    """
    if self._frames is not None:
      return self._frames
    if self.reference_image is not None:
      height, width = self.reference_image.shape[:2]
      return FrameSize(width, height)
    side = self.networks.model.vae.sample_size
    side = side[0] if isinstance(side, tuple) else side or _DEFAULT_SIZE
    return FrameSize.of(side // (2 if self.config.part == "head" else 1))

  def placed_weights(self, mesh: Any = None) -> PyTree:
    """The weights on a sampling mesh, or on the default device; placed once per mesh, then reused.

    They are replicated: every device predicts full windows (or some frames of them), for which it needs all weights,
    and Stable Diffusion's 2.7 GB in bfloat16 fit on one device. Sharding them would cost an all-gather of every kernel
    in every sampling step. Kernels are converted to the compute type; scales, biases and embeddings, which layers use
    in float32, are unchanged. So the results are those of the stored weights, bit for bit.
    """
    if mesh not in self._placed:
      dtype = jnp.dtype(self.networks.dtype)
      cast = lambda path, leaf: np.asarray(leaf, dtype if path[-1].key in _CAST else None)
      weights = jax.tree_util.tree_map_with_path(cast, self.weights)
      self._placed[mesh] = jax.device_put(weights, None if mesh is None else sharding.replicated(mesh))
    return self._placed[mesh]

  def placed_pose_channels(self, mesh: Any = None) -> PoseChannels:
    """The look-up of the pose channels from the part's own texture, replicated; placed once per mesh, then reused."""
    key = "pose_channels", mesh
    if key not in self._placed:
      pose_channels = make_pose_channels(self.config.data.pose_channels, self.texture)
      self._placed[key] = jax.device_put(pose_channels, None if mesh is None else sharding.replicated(mesh))
    return self._placed[key]

  def with_light_decoder(self, light: StoredLightDecoder) -> "Part":
    """The part with frames decoded by a light decoder.

    Raises:
      UserError: it was trained for another autoencoder.
    """
    light.check(self.weights["vae"])
    networks = dataclasses.replace(self.networks, light=light.config)
    return dataclasses.replace(self, networks=networks, weights={**self.weights, LIGHT_DECODER: light.params})

  def with_attended_frames(self, count: int) -> "Part":
    """The part whose frames attend to `count` frames of their window (0: all); the placed weights are shared.

    Raises:
      UserError: the count is negative.
    """
    model = self.networks.model
    model = dataclasses.replace(model, unet=dataclasses.replace(model.unet, attended_frames=count))
    return self._sharing_placed(networks=dataclasses.replace(self.networks, model=model))

  def with_frame_size(self, size: FrameSize) -> "Part":
    """The part of a person whose frames have another size (`texture.background.reframe`); placed weights are shared.

    Raises:
      UserError: frames of the body can't have this size.
    """
    body, multiple = self.config.part == "body", self.networks.model.multiple()
    if body and any(side % multiple for side in size):
      raise UserError(f"--size={size}: this person's frames have sides that are multiples of {multiple}")
    texture = self.texture and reframed(self.texture, size)
    part = self._sharing_placed(texture=texture, _frames=size if body else None)
    for key in [key for key in part._placed if isinstance(key, tuple)]:
      del part._placed[key]  # of the old texture
    return part

  def sampler(self, mesh: Any = None) -> Sampler:
    """Returns the sampler of its settings. Raises UserError if one of them is unknown or out of range."""
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
    sample = dataclasses.replace(self.sample, **changes)
    part = self._sharing_placed(config=dataclasses.replace(self.config, sample=sample))
    part.sampler()
    return part

  def _sharing_placed(self, **changes: Any) -> "Part":
    part = dataclasses.replace(self, **changes)
    part._placed.update(self._placed)
    return part
