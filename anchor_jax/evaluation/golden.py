"""Golden numbers for `verify`: recomputes every array that the reference implementation computed, and compares them.

A golden folder holds golden.npz, golden.json and the weights in body/ and head/.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.config.run import ModelConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, NdArray, PyTree
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.schedule import add_noise, make_schedule
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import WindowRule
from anchor_jax.files.arrays import read_arrays
from anchor_jax.formats.diffusers import Model, load_model, load_schedule, read_json_object
from anchor_jax.formats.registry import make_module
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import to_signed

INPUTS = frozenset(
  "clip_pixels null_ids vae_image vae_z f_x f_t f_ctx f_pose h_x v_x v_pose v_t v_ctx s_poses_u8 s_latents0 l_z0 "
  "l_noise l_t l_mask_keep hs_image_u8 hs_mask_u8 hs_control_u8 hs_latents0".split()
)
Arrays = dict[str, Any]
# Everything here runs once or twice: XLA's optimizations would cost more time than they save.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class MissingInput(UserError):
  """golden.npz lacks an array that outputs are computed from."""


class Network:
  """One part's networks and weights; each function compiles once per shape."""

  def __init__(self, networks: Networks, weights: PyTree):
    self.networks, self.weights = networks, weights
    params = lambda weights: {"params": {name: weights[name] for name in ("unet", "controlnet")}}
    denoiser = networks.denoiser
    self._embed = jit(lambda weights, pose: denoiser.apply(params(weights), pose, method="embed_pose"))
    self._branch = jit(lambda w, *x: denoiser.apply(params(w), *x, method=lambda module, *x: module.controlnet(*x)))
    self._alone = jit(lambda w, *x: denoiser.apply(params(w), *x, method=lambda module, *x: module.unet(*x)))
    self._denoise = jit(networks.denoise)

  def embed_pose(self, pose: Array) -> Array:
    """Returns the pose features of renders in [0, 1]."""
    return self._embed(self.weights, pose)

  def branch(self, *inputs: Array) -> tuple[tuple[Array, ...], Array]:
    """Returns the pose branch's residuals."""
    return self._branch(self.weights, *inputs)

  def unet_alone(self, *inputs: Array) -> Array:
    """Returns the UNet's prediction without pose residuals."""
    return self._alone(self.weights, *inputs)

  def denoise(self, *inputs: Any) -> Array:
    """Returns the prediction with pose residuals and, for the head, the inpainting condition."""
    return self._denoise(self.weights, *inputs)


class Golden:
  """A golden folder: arrays, settings and networks.

  Attributes:
    arrays: golden.npz.
    settings: golden.json.
    body, head: the two frame-wise networks.
    video: the body's weights in the reference's video network, which also adds the last pose residual to the input of
      the middle block.
    text: the text tower.
  """

  def __init__(self, folder: Path):
    """Reads the folder.

    Raises:
      UserError: a file is missing, damaged or of another layout.
    """
    if not folder.is_dir():
      raise UserError(f"no folder {folder}; give one with golden.npz, golden.json, body/ and head/")
    self.settings = read_json_object(folder / "golden.json")
    self.arrays = read_arrays(folder / "golden.npz", "file", "fetch it again")
    shared = {
      "vae": load_model(folder / "body/vae", VAEConfig, np.float32),
      "image_encoder": load_model(folder / "body/image_encoder", CLIPVisionConfig, np.float32),
    }
    schedule = load_schedule(folder / "body/scheduler")
    self.text = load_model(folder / "body/text_encoder", CLIPTextConfig, np.float32)

    def part(name: str) -> Network:
      models: dict[str, Model] = {
        "unet": load_model(folder / name / "unet", UNetConfig, np.float32),
        "controlnet": load_model(folder / name / "controlnet", ControlNetConfig, np.float32),
        **shared,
      }
      configs: dict[str, Any] = {role: model.config for role, model in models.items()}
      weights = jax.tree.map(jnp.asarray, {role: model.params for role, model in models.items()})
      return Network(Networks(ModelConfig(**configs, schedule=schedule)), weights)

    self.body, self.head = part("body"), part("head")
    model = self.body.networks.model
    unet = dataclasses.replace(model.unet, mid_gets_last_residual=True)
    self.video = Network(Networks(dataclasses.replace(model, unet=unet)), self.body.weights)

  def __getitem__(self, name: str) -> NdArray:
    if name not in self.arrays:
      raise MissingInput(f"golden.npz has no array {name!r}, which others are computed from; fetch it again")
    return self.arrays[name]

  def setting(self, name: str) -> Any:
    """Returns a number from golden.json."""
    if not isinstance(self.settings.get(name), (int, float)):
      raise UserError(f"golden.json has no number {name!r}; fetch it again")
    return self.settings[name]


def channels_last(x: NdArray) -> Float[Array, "..."]:
  """Returns NHWC for NCHW, NTHWC for NCTHW."""
  return jnp.asarray(np.moveaxis(x, 1, -1))


def channels_second(x: Any) -> NdArray:
  """Returns NCHW for NHWC, NCTHW for NTHWC."""
  return np.moveaxis(np.asarray(x), -1, 1)


def one_frame_clips(x: NdArray) -> Float[Array, "B 1 H W C"]:
  """Returns NCHW images as clips of one frame."""
  return channels_last(x)[:, None]


def towers(golden: Golden) -> Arrays:
  """Returns the outputs of CLIP's two towers."""
  vision, text = golden.body.networks.image_encoder, make_module(golden.text.config)
  ids = jnp.asarray(golden["null_ids"], jnp.int32)
  pixels = channels_last(golden["clip_pixels"])
  return {
    "clip_last_hidden_state": jit(vision.apply)({"params": golden.body.weights["image_encoder"]}, pixels),
    "null_context": jit(text.apply)({"params": golden.text.params}, ids),
  }


def autoencoder(golden: Golden) -> Arrays:
  """Returns the outputs of the autoencoder's encoder and decoder; latents are not scaled."""
  networks, weights = golden.body.networks, golden.body.weights
  mean, log_variance = jit(networks.encode_moments)(weights, channels_last(golden["vae_image"]))
  decode = jit(lambda weights, z: networks.vae.apply({"params": weights["vae"]}, z, method="decode"))
  decoded = decode(weights, channels_last(golden["vae_z"]))
  return {
    "vae_mean": channels_second(mean),
    "vae_logvar": channels_second(log_variance),
    "vae_decoded": channels_second(decoded),
  }


def _all_frames(clips: Array) -> Array:
  return jnp.ones(clips.shape[:2], bool)


def frame_network(golden: Golden) -> Arrays:
  """Returns the outputs of the frame-wise networks of body and head."""
  sample, pose = one_frame_clips(golden["f_x"]), one_frame_clips(golden["f_pose"])
  conditions = jnp.asarray(golden["f_t"], jnp.int32), jnp.asarray(golden["f_ctx"])
  features = golden.body.embed_pose(pose)
  down, middle = golden.body.branch(sample, *conditions, features)
  found: Arrays = {f"f_down_{i:02d}": channels_second(x[:, 0]) for i, x in enumerate(down)}
  found["f_mid"] = channels_second(middle[:, 0])
  found["f_eps_unet_alone"] = channels_second(golden.body.unet_alone(sample, *conditions)[:, 0])
  found["f_eps"] = channels_second(
    golden.body.denoise(sample, *conditions, FrameInputs(features), _all_frames(sample))[:, 0]
  )
  sample = one_frame_clips(golden["h_x"])
  channels = golden.head.networks.model.unet.out_channels
  inputs = FrameInputs(golden.head.embed_pose(pose), sample[..., channels:])
  eps = golden.head.denoise(sample[..., :channels], *conditions, inputs, _all_frames(sample))
  return {**found, "h_eps": channels_second(eps[:, 0])}


def video_network(golden: Golden) -> Arrays:
  """Returns the outputs of the reference's video network."""
  sample, context = channels_last(golden["v_x"]), jnp.asarray(golden["v_ctx"])
  timesteps = jnp.broadcast_to(jnp.asarray(golden["v_t"], jnp.int32), (len(sample),))  # stored for all, or one each
  features = golden.video.embed_pose(channels_last(golden["v_pose"]))
  down, middle = golden.video.branch(sample, timesteps, context, features)
  eps = golden.video.denoise(sample, timesteps, context, FrameInputs(features), _all_frames(sample))
  found = {"v_down_00": down[0], "v_down_last": down[-1], "v_mid": middle, "v_eps": eps}
  return {name: channels_second(array) for name, array in found.items()}


def losses(golden: Golden) -> Arrays:
  """Returns the training losses for fixed noise and timesteps."""
  schedule = make_schedule(golden.body.networks.model.schedule)
  clean, noise, pose = (
    one_frame_clips(golden["l_z0"]),
    one_frame_clips(golden["l_noise"]),
    one_frame_clips(golden["f_pose"]),
  )
  timesteps, context = jnp.asarray(golden["l_t"], jnp.int32), jnp.asarray(golden["f_ctx"])
  keep = jnp.asarray(golden["l_mask_keep"][:, 0] > 0.5)
  head = golden.head.networks
  inpaint = jit(head.inpainting_channels)(golden.head.weights, channels_last(golden["vae_image"]), keep)
  found: Arrays = {
    "l_noisy": channels_second(add_noise(schedule, clean, noise, timesteps)[:, 0]),
    "l_mask_latent": channels_second(inpaint[..., :1]),
    "l_masked_mean": channels_second(inpaint[..., 1:] / head.model.vae.scaling_factor),
  }
  for name, part, extra in (("body", golden.body, None), ("head", golden.head, inpaint[:, None])):
    inputs = FrameInputs(part.embed_pose(pose), extra)
    loss, _ = denoising_loss(part.denoise, schedule, clean, noise, timesteps, context, inputs)
    found[f"l_loss_{name}"] = np.asarray(loss.mean())
  return found


def _sampled(
  golden: Golden, part: Network, noise: Array, inputs: FrameInputs, window: int, overlap: int, prefix: str = ""
) -> tuple[Array, Array]:
  """Returns (timesteps, latents after every step [S T H W C]) of a sampling run; `inputs` has frames first."""
  guidance = float(golden.setting(f"{prefix}guidance_scale"))
  scale = float(golden.setting(f"{prefix}conditioning_scale"))
  solver = make_solver("ddim", part.networks.model.schedule, int(golden.setting("steps")))
  sampler = Sampler(solver, WindowRule(window, overlap), guidance=guidance)

  @jit
  def run(weights, noise, inputs, context, null_context):
    denoise = lambda *arguments: part.networks.denoise(weights, *arguments, conditioning_scale=scale)
    return sampler.clip(denoise, noise, inputs, context, null_context, every_step=True)

  contexts = towers(golden)
  image, null = contexts["clip_last_hidden_state"][0], contexts["null_context"][0]
  return solver.timesteps, run(part.weights, noise, inputs, image, null)


def clip_run(golden: Golden) -> Arrays:
  """Returns latents and pictures of a clip, denoised in overlapping windows."""
  networks, weights = golden.video.networks, golden.video.weights
  inputs = FrameInputs(jit(networks.embed_pose)(weights, jnp.asarray(golden["s_poses_u8"])[None])[0])
  window, overlap = int(golden.setting("window")), int(golden.setting("overlap"))
  noise = channels_last(golden["s_latents0"])[0]
  timesteps, latents = _sampled(golden, golden.video, noise, inputs, window, overlap)
  images = jit(networks.decode)(weights, latents[-1])
  return {
    "s_timesteps": np.asarray(timesteps),
    "s_latents_per_step": np.asarray(latents).transpose(0, 4, 1, 2, 3)[:, None],
    "s_video": np.asarray(images).transpose(3, 0, 1, 2)[None],
  }


def head_run(golden: Golden) -> Arrays:
  """Returns latents and pictures of a head run, frame by frame."""
  networks, weights = golden.head.networks, golden.head.weights
  images, keep = to_signed(jnp.asarray(golden["hs_image_u8"])), jnp.asarray(golden["hs_mask_u8"] > 127)
  inputs = FrameInputs(
    jit(networks.embed_pose)(weights, jnp.asarray(golden["hs_control_u8"])[None])[0],
    jit(networks.inpainting_channels)(weights, images, keep),
  )
  _, latents = _sampled(golden, golden.head, channels_last(golden["hs_latents0"]), inputs, 1, 0, "head_")
  return {
    "hs_latents_per_step": np.asarray(latents).transpose(0, 1, 4, 2, 3),
    "hs_images": np.asarray(jit(networks.decode)(weights, latents[-1])),
  }


GROUPS: tuple[Callable[[Golden], Arrays], ...] = (
  towers,
  autoencoder,
  frame_network,
  video_network,
  losses,
  clip_run,
  head_run,
)


@dataclasses.dataclass(frozen=True)
class ArrayCheck:
  """The comparison of one array; `error` and `tolerance` are absolute."""

  name: str
  shape: tuple[int, ...]
  error: float
  tolerance: float

  @property
  def holds(self) -> bool:
    """Whether the error is within the tolerance; NaN never is."""
    return self.error <= self.tolerance

  def __str__(self) -> str:
    shape = "x".join(map(str, self.shape)) or "scalar"
    return f"{self.name:24}{shape:>20}{self.error:12.2e}{self.tolerance:12.2e}  {'ok' if self.holds else 'FAILS'}"


def check_array(name: str, expected: NdArray, computed: NdArray | None) -> ArrayCheck:
  """Compares one array; the error is infinite if it was not computed or has another shape."""
  relative = 1e-4 if name.startswith(("s_", "hs_")) else 2e-5
  exact = expected.dtype.kind not in "fc"
  largest = float(np.abs(expected).max()) if expected.size else 0.0
  tolerance = 0.0 if exact else relative * max(1.0, largest)
  error = float("inf")
  if computed is not None and computed.shape == expected.shape:
    error = float(np.abs(computed.astype(np.float64) - expected.astype(np.float64)).max()) if expected.size else 0.0
  return ArrayCheck(name, expected.shape, error, tolerance)


def verify(folder: Path) -> Iterator[tuple[ArrayCheck, NdArray | None]]:
  """Yields (check, computed array or None) for every golden array that is not an input."""
  golden = Golden(folder)
  outputs = [name for name in golden.arrays if name not in INPUTS]
  computed: dict[str, NdArray] = {}
  for function in tqdm(GROUPS, desc="compute", unit="group", leave=False):
    with contextlib.suppress(MissingInput):  # outputs that were not computed fail below
      computed |= {name: np.asarray(array) for name, array in function(golden).items()}
  for name in outputs:
    yield check_array(name, golden.arrays[name], computed.get(name)), computed.get(name)
