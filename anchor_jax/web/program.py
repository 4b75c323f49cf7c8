"""A person's body as one ONNX program, from a frame's pose to its picture.

Frames are computed one at a time: with a single sampling step, a window of one frame makes no measurable difference
(docs/results.md, sampling) and needs no state in the browser. Noise, timesteps and image tokens are the same for all
frames, so they are constants of the program.
"""

import importlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from anchor_jax.config.run import check_seed
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, NdArray, UInt8
from anchor_jax.diffusion.guidance import guide, make_branches
from anchor_jax.diffusion.solvers import advance, make_solver
from anchor_jax.inference.reference import fitted
from anchor_jax.models.controlnet import RENDER_CHANNELS, FrameInputs
from anchor_jax.store.part import Part
from anchor_jax.texture.channels import branch_channels, to_unit
from anchor_jax.web.fold import fold

INPUTS = ("pose", "channels")
_LARGEST_ERROR = 1e-4  # of pictures from 0 to 1


def frame_function(part: Part, picture: UInt8[NdArray, "H W 3"], seed: int = 0) -> Callable[..., Array]:
  """Returns a function from a frame's pose render uint8 [1 H W 3] and pose channels uint8 [1 H W D] to its picture.

  The picture is float32 [1 H W 3] in [0, 1]. The function takes no channels if the pose branch takes none.

  Args:
    part: the body.
    picture: reference image of the person.
    seed: of the noise, as in `Person.animate`.
  """
  check_seed(seed)
  networks, sample, weights = part.networks, part.sample, jax.tree.map(jnp.asarray, part.weights)
  latent = *(side // networks.model.stride for side in part.frame_size.shape), networks.model.unet.out_channels
  noise = jax.random.normal(jax.random.split(jax.random.key(seed))[0], latent)
  context = networks.encode_reference(weights, jnp.asarray(fitted(picture, part.frame_size))[None])[0]
  branches = make_branches(context, weights["null_context"], sample.guidance, sample.guidance_interval)
  solver = make_solver(sample.solver, networks.model.schedule, sample.steps)

  def frame(pose: UInt8[Array, "1 H W 3"], channels: UInt8[Array, "1 H W D"] | None = None) -> Float[Array, "1 H W 3"]:
    seen = None if channels is None else to_unit(channels)
    features = networks.embed_pose(weights, pose[:, None], None if seen is None else seen[:, None])
    both = lambda array: jnp.repeat(array, len(branches), axis=0)  # the conditional and the null branch
    latents = noise[None, None]
    clean = jnp.zeros_like(latents)
    for step in range(len(solver)):
      at = jnp.asarray(step)
      timesteps = jnp.full((len(branches),), solver.timesteps[step])
      predicted = networks.denoise(
        weights,
        both(latents),
        timesteps,
        branches.contexts,
        FrameInputs(both(features)),
        conditioning_scale=sample.conditioning_scale,
      )
      guided = guide(predicted[:, None], branches.scale_at(solver, at))
      latents, clean = advance(solver, at, latents, guided, clean)
    return networks.paint(weights, latents[:, 0], pose, seen)

  return frame


def input_shapes(part: Part) -> list[jax.ShapeDtypeStruct]:
  """Returns the shapes of the function's inputs: the pose render and, if any, the pose channels."""
  more = branch_channels(part.config.data.pose_channels) - RENDER_CHANNELS
  shape = lambda channels: jax.ShapeDtypeStruct((1, *part.frame_size.shape, channels), jnp.uint8)
  return [shape(RENDER_CHANNELS), *([shape(more)] if more else [])]


def require_converter() -> Any:
  """Returns the module jax2onnx. Raises UserError if it is not installed; the default install lacks it."""
  # It imports its own examples, and logs a traceback for each one whose packages are missing.
  level = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    return importlib.import_module("jax2onnx")
  except ImportError:
    raise UserError(
      "--web needs the converter jax2onnx, which is not installed: run `make web`, or"
      " `uv pip install 'anchor-jax[web]'` with the overrides of pyproject.toml"
    ) from None
  finally:
    logging.disable(level)


class Program(NamedTuple):
  """An ONNX program, with values by which a browser checks that its device computes correctly.

  Attributes:
    onnx: the file, including the weights.
    check: about 64 evenly spaced values of the picture for `check_inputs`.
  """

  onnx: bytes
  check: list[float]


def check_inputs(inputs: list[jax.ShapeDtypeStruct]) -> list[UInt8[NdArray, "..."]]:
  """Returns inputs for comparing results: byte i is 31 i modulo 256."""
  return [(np.arange(np.prod(one.shape)) * 31 % 256).astype(np.uint8).reshape(one.shape) for one in inputs]


def convert(function: Callable[..., Array], inputs: list[jax.ShapeDtypeStruct]) -> Program:
  """Returns a function as an ONNX program; takes minutes for a body of the shipped size.

  Args:
    function: from one or two arrays, named by `INPUTS`, to one array, which is named "picture".
    inputs: their shapes.

  Raises:
    UserError: the converter is not installed, or does not support an operation of the function.
  """
  converter = require_converter()
  # Folded by JAX first, because the converter patches jax.numpy while it traces.
  folded = core.jaxpr_as_fun(fold(function, inputs))
  level = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    model = converter.to_onnx(
      lambda *values: folded(*values)[0],
      list(inputs),
      model_name="frame",
      input_names=list(INPUTS[: len(inputs)]),
      output_names=["picture"],
    )
  except (NotImplementedError, ValueError, TypeError, KeyError, RuntimeError) as error:
    raise UserError(f"jax2onnx cannot convert this person ({' '.join(str(error).split())[:200]})") from error
  finally:
    logging.disable(level)
  program = model.SerializeToString()
  return Program(program, _check(program, function, inputs))


def _check(program: bytes, function: Callable[..., Array], inputs: list[jax.ShapeDtypeStruct]) -> list[float]:
  """Returns `Program.check`. Raises UserError unless the program agrees with the function."""
  runtime = importlib.import_module("onnxruntime")
  options = runtime.SessionOptions()
  options.log_severity_level = 3  # hide its notes on removed nodes
  session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
  arrays = check_inputs(inputs)
  (picture,) = session.run(None, dict(zip(INPUTS, arrays)))
  if not np.isfinite(picture).all():
    raise UserError(
      "this person's pictures are not finite: the weights are damaged, or were trained with too high a learning rate"
    )
  error = float(np.abs(picture - np.asarray(jax.jit(function)(*arrays))).max())
  if not error < _LARGEST_ERROR:
    raise UserError(f"the ONNX program differs from JAX by {error:.2g}: jax2onnx converted this person wrongly")
  return [round(value, 4) for value in picture.reshape(-1)[:: max(1, picture.size // 64)].tolist()]
