"""Writes inference bundles: a person's weights and programs, as files that run without this package.

    config.json                    package versions, file hashes, and each part's sizes and sampling tables
    generate.py                    a copy of run_bundle.py: reads arrays, writes an .npz
    body/weights.safetensors       a flat tree, "unet/conv_in/kernel"; float32
    body/appearance.npy            the reference image, uint8 [H W 3]; optional
    body/NAME.stablehlo            one per entry of `programs`
    head/...                       the same for the head, with `inpainting`

Every program takes the part's weights (the content of the safetensors file), then arrays with a leading batch axis of
any size. The number of frames in a window and the size of the pictures are fixed.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, NdArray, PyTree, UInt8
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import WindowRule
from anchor_jax.files.inputs import read_json
from anchor_jax.files.manifest import FolderKind, not_newer
from anchor_jax.files.outputs import check_folder, new_folder
from anchor_jax.formats.tensors import Tensor, write_safetensors
from anchor_jax.models.controlnet import RENDER_CHANNELS, FrameInputs
from anchor_jax.store import run_bundle
from anchor_jax.store.part import Part
from anchor_jax.texture.channels import PoseChannels, to_unit
from anchor_jax.texture.look_up.plain import LookUpTables

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write_bundle(
  folder: Path, parts: Mapping[str, Part], platforms: Sequence[str], pose_channels: PoseChannels | None = None
) -> None:
  """Writes a bundle beside `folder`, and renames it once it is complete.

  Args:
    folder: created, or replaced if it holds a bundle.
    parts: "body", and optionally "head".
    platforms: some of `PLATFORMS`; each program runs on all of them.
    pose_channels: the look-up of the body's pose channels; None if its pose branch takes the pose render only. The
      head's pose branch takes a crop of these channels, so it has no look-up.

  Raises:
    UserError: an unknown platform, or a folder that holds something else or cannot be written.
  """
  check_bundle_target(folder, platforms)
  look_ups = {"body": pose_channels}
  with new_folder(folder, BUNDLE) as new:
    shutil.copyfile(run_bundle.__file__, new / "generate.py")
    settings = {name: _write_part(new / name, part, look_ups.get(name), platforms) for name, part in parts.items()}
    # Not the script: it verifies the hashes, and users may change it.
    written = sorted(path for name in parts for path in (new / name).iterdir())
    config = {
      "format": run_bundle.FORMAT,
      "made_by": _versions(),
      "jax_at_least": list(jax.__version_info__),
      "platforms": list(platforms),
      "parts": settings,
      "files": {path.relative_to(new).as_posix(): _file_hash(path) for path in written},
    }
    config["sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True, allow_nan=False).encode()).hexdigest()
    (new / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def check_bundle_target(folder: Path, platforms: Sequence[str]) -> None:
  """Raises UserError for a folder or platforms that `write_bundle` would refuse."""
  for name in platforms:
    if name not in PLATFORMS:
      raise UserError(f'unknown platform "{name}": use some of {", ".join(PLATFORMS)}.{suggestion(name, PLATFORMS)}')
  if not platforms or len(set(platforms)) < len(platforms):
    raise UserError(f"platforms {','.join(platforms) or 'none'}: name each one once, such as cpu,cuda,tpu")
  check_folder(folder, BUNDLE)


def programs(
  part: Part, pose_channels: PoseChannels | None = None
) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
  """Returns {name: (function, shapes of its inputs after the weights)}; shapes are without the batch axis.

  look_up      (if the pose branch takes more than the pose render) surface map uint8 [H W 3] -> channels uint8 [H W D]
  pose_stem    pose render uint8 [H W 3], with `look_up` also its channels -> features [h w C0], once per frame
  denoiser     latents [T h w C], timestep int32, context [N D], {"pose": [T h w C0]} (for the head also "inpaint"
               [T h w 1+C]), mask of the frames that are not padding bool [T] -> prediction [T h w C]; the pose_channels
               scale is that of the settings
  encoder      picture in [-1, 1], [H W 3] -> scaled latent [h w C]
  decoder      scaled latent [h w C] -> picture in [0, 1], [H W 3], or smaller by the refiner's scale
  refiner      (if there is one) a decoded picture, and the inputs of `pose_stem` -> the refined picture [H W 3]
  image_tower  picture uint8 [H W 3] -> context [N D]
  inpainting   (head) picture in [-1, 1], keep mask bool [H W] -> channels [h w 1+C]
  """
  networks, sample, model = part.networks, part.sample, part.networks.model
  picture, latent = _picture(part), _latent(part)
  array = jax.ShapeDtypeStruct
  context = array((model.image_encoder.tokens, model.unet.cross_attention_dim), jnp.float32)
  clip = lambda channels: array((sample.window, *latent[:2], channels), jnp.float32)
  condition = {"pose": clip(model.controlnet.block_out_channels[0])}
  if networks.inpaints:
    condition["inpaint"] = clip(model.unet.in_channels - model.unet.out_channels)

  more = model.controlnet.conditioning_channels - RENDER_CHANNELS
  # Without a texture the looked-up channels are zero, and need no surface map.
  empty = pose_channels is not None and pose_channels.nothing_known

  def refiner(weights, decoded, pose, *looked_up):
    return jnp.clip(networks.refine(weights, decoded, pose, *(to_unit(channels) for channels in looked_up)), 0, 1)

  def pose_stem(weights, pose, *looked_up):
    if empty:
      looked_up = (jnp.zeros((*pose.shape[:-1], more), jnp.uint8),)
    return networks.embed_pose(weights, pose[:, None], *(to_unit(channels)[:, None] for channels in looked_up))[:, 0]

  def denoiser(weights, latents, timestep, context, condition, flags):
    frame_inputs = FrameInputs(condition["pose"], condition.get("inpaint"))
    return networks.denoise(weights, latents, timestep, context, frame_inputs, flags, sample.conditioning_scale)

  flags = array((sample.window,), jnp.bool_)
  pixels, image, latents = array(picture, jnp.float32), array(picture, jnp.uint8), array(latent, jnp.float32)
  stem_inputs = (image, array((*picture[:2], more), jnp.uint8)) if more and not empty else (image,)
  functions = {
    "pose_stem": (pose_stem, stem_inputs),
    "denoiser": (denoiser, (clip(latent[2]), array((), jnp.int32), context, condition, flags)),
    "encoder": (networks.encode, (pixels,)),
    "decoder": (networks.decode, (latents,)),
    "image_tower": (networks.encode_reference, (image,)),
  }
  if networks.refiner is not None:
    decoded = array((picture[0] // model.scale, picture[1] // model.scale, 3), jnp.float32)
    functions["refiner"] = (refiner, (decoded, *stem_inputs))
  if pose_channels is not None and not empty:
    functions["look_up"] = (functools.partial(_look_up, pose_channels.kind), (image,))
  if networks.inpaints:
    functions["inpainting"] = (networks.inpainting_channels, (pixels, array(picture[:2], jnp.bool_)))
  return functions


def _look_up(kind: str, weights: PyTree, surface: UInt8[Array, "T H W 3"]) -> UInt8[Array, "T H W C"]:
  tables = LookUpTables(**weights["appearance"]) if "appearance" in weights else None
  return PoseChannels(kind, tables)(surface)


def _export(function: Callable, flat: PyTree, inputs: tuple, platforms: Sequence[str]) -> export.Exported:
  (batch,) = export.symbolic_shape("batch")

  def program(flat, *inputs):
    weights = unflatten_dict({tuple(name.split("/")): leaf for name, leaf in flat.items()})
    # vmap over single examples, since the networks' code cannot compare a symbolic batch size with a number.
    one = lambda *example: function(weights, *jax.tree.map(lambda leaf: leaf[None], example))[0]
    return jax.vmap(one)(*inputs)

  batched = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype), inputs)
  limit = jax.config.jax_traceback_in_locations_limit
  jax.config.update("jax_traceback_in_locations_limit", 0)  # else programs would contain local paths
  try:
    with sharding.export_mode():
      return export.export(jax.jit(program), platforms=tuple(platforms))(flat, *batched)
  finally:
    jax.config.update("jax_traceback_in_locations_limit", limit)


def _write_part(
  folder: Path, part: Part, pose_channels: PoseChannels | None, platforms: Sequence[str]
) -> dict[str, Any]:
  """Writes a part's weights and programs; returns its settings, for config.json."""
  folder.mkdir()
  tables = None if pose_channels is None else pose_channels.tables
  arrays = part.weights if tables is None else {**part.weights, "appearance": tables._asdict()}
  flat = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(arrays).items()}
  write_safetensors(folder / "weights.safetensors", {name: Tensor.of(leaf) for name, leaf in flat.items()})
  if part.reference_image is not None:
    np.save(folder / run_bundle.PICTURE, part.reference_image)
  shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}
  signatures = {}
  for name, (function, inputs) in programs(part, pose_channels).items():
    exported = _export(function, shapes, inputs, platforms)
    (folder / f"{name}.stablehlo").write_bytes(exported.serialize())
    takes = [aval.str_short() for aval in exported.in_avals[len(flat) :]]
    signatures[name] = {"takes": takes, "gives": [aval.str_short() for aval in exported.out_avals]}
  return {"step": part.step, **_sampling(part), "programs": signatures}


def _sampling(part: Part) -> dict[str, Any]:
  """Returns what sampling needs beside the weights; tables hold the library's float32 values exactly."""
  sample, model = part.sample, part.networks.model
  rule = WindowRule(sample.window, sample.overlap, sample.tail)
  null = jnp.asarray(part.weights["null_context"])
  branches = make_branches(null, null, sample.guidance, sample.guidance_interval)
  solver = make_solver(sample.solver, model.schedule, sample.steps)
  alpha, sigma = np.asarray(solver.alpha, np.float64), np.asarray(solver.sigma, np.float64)
  of_sample, of_prediction = _clean_coefficients(solver.prediction_type, alpha, sigma)
  table = lambda values: np.asarray(values, np.float32).tolist()
  scales = branches.scale_at(solver, jnp.arange(len(solver)))
  return {
    "picture": list(_picture(part)),
    "latent": list(_latent(part)),
    "window": rule.window,
    "overlap": rule.overlap,
    "tail": rule.tail,
    "taper": [1.0] * rule.window,  # read by the script: weights of the slots, which are all equal
    "branches": len(branches),
    "solver": {
      "timesteps": np.asarray(solver.timesteps).tolist(),
      "clean_from_sample": table(of_sample),
      "clean_from_prediction": table(of_prediction),
      **{name: table(getattr(solver, name)) for name in ("from_sample", "from_clean", "from_previous")},
      "guidance": table(np.broadcast_to(scales, len(solver))),
    },
    "settings": dataclasses.asdict(sample),
    "dtype": part.networks.dtype,
  }


def _clean_coefficients(prediction_type: str, alpha: NdArray, sigma: NdArray) -> tuple[NdArray, NdArray]:
  """Returns (a, b) of each step, for which the clean latent is a * sample + b * prediction.

  alpha is 0 at the first step of a schedule with zero terminal SNR, where epsilon does not determine the clean latent.
  """
  if prediction_type == "epsilon":
    return 1 / alpha, -sigma / alpha
  return (alpha, -sigma) if prediction_type == "v_prediction" else (np.zeros_like(alpha), np.ones_like(alpha))


def _picture(part: Part) -> tuple[int, int, int]:
  return (*part.frame_size.shape, 3)


def _latent(part: Part) -> tuple[int, int, int]:
  model = part.networks.model
  height, width = (side // model.stride for side in part.frame_size.shape)
  return (height, width, model.unet.out_channels)


def _versions() -> dict[str, str]:
  packages = ("anchor_jax", "jax", "jaxlib", "flax", "numpy", "safetensors", "flatbuffers")
  return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def _file_hash(path: Path) -> dict[str, Any]:
  with path.open("rb") as file:
    return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _legacy_files(folder: Path) -> set[str]:
  """Returns the files of a bundle written before folders had lists; its config.json names most, with their sizes."""
  try:
    config = read_json(folder / "config.json")
    if not str(config["format"]).startswith("anchor_jax bundle"):
      return set()
    names = {name for name, facts in config["files"].items() if (folder / name).stat().st_size == facts["bytes"]}
  except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
    return set()
  return not_newer(folder, {*names, "generate.py", "config.json"}, "config.json")


BUNDLE = FolderKind("bundle", _legacy_files)  # the folders that `write_bundle` replaces
