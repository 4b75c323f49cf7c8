"""A person's body as one ONNX program: from a frame's pose to its picture.

Frames are made one by one: a window of one frame changes nothing that can be measured where one step is sampled
(docs/results.md, sampling), and needs no state in the browser. Noise, timesteps and the person's tokens are the same
for all frames, so that the program holds them.
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
from anchor_jax.inference.reference import square
from anchor_jax.models.controlnet import RENDER_CHANNELS
from anchor_jax.store.part import Part
from anchor_jax.texture.channels import branch_channels, to_unit
from anchor_jax.web.fold import fold

INPUTS = ("pose", "channels")
_LARGEST_ERROR = 1e-4  # of pictures from 0 to 1


def frame_function(part: Part, picture: UInt8[NdArray, "H W 3"], seed: int = 0) -> Callable[..., Array]:
  """Returns a function of a frame's pose render uint8 [1 H W 3] and looked-up channels uint8 [1 H W D].

  It gives the picture, float32 [1 H W 3] in [0, 1]. The channels are left out where the pose branch takes none.

  Args:
    part: the body.
    picture: of the person, for the image tower.
    seed: of the noise, as `Person.animate` has it.
  """
  check_seed(seed)
  networks, sample, weights = part.networks, part.sample, jax.tree.map(jnp.asarray, part.weights)
  side = part.size // networks.model.stride
  latent = (side, side, networks.model.unet.out_channels)
  noise = jax.random.normal(jax.random.split(jax.random.key(seed))[0], latent)
  context = networks.encode_reference(weights, jnp.asarray(square(picture, part.size))[None])[0]
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
        weights, both(latents), timesteps, branches.contexts, {"pose": both(features)}, None, sample.conditioning_scale
      )
      guided = guide(predicted[:, None], branches.scale_at(solver, at))
      latents, clean = advance(solver, at, latents, guided, clean)
    return networks.paint(weights, latents[:, 0], pose, seen)

  return frame


def input_shapes(part: Part) -> list[jax.ShapeDtypeStruct]:
  """Returns the shapes of what the function takes: the pose render, and the channels where there are any."""
  more = branch_channels(part.config.data.appearance) - RENDER_CHANNELS
  shape = lambda channels: jax.ShapeDtypeStruct((1, part.size, part.size, channels), jnp.uint8)
  return [shape(RENDER_CHANNELS), *([shape(more)] if more else [])]


def require_converter() -> Any:
  """Returns jax2onnx. Raises UserError where it is not installed; it is not part of the default install."""
  # It imports its own examples, and logs a traceback for each whose packages are missing.
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
  """An ONNX program, and some numbers by which a browser sees whether its device computes it rightly.

  Attributes:
    onnx: the file, with the weights inside.
    check: about 64 values of the picture of `check_inputs`, evenly spread.
  """

  onnx: bytes
  check: list[float]


def check_inputs(inputs: list[jax.ShapeDtypeStruct]) -> list[UInt8[NdArray, "..."]]:
  """Returns inputs to compare results by: byte i is 31 i modulo 256."""
  return [(np.arange(np.prod(one.shape)) * 31 % 256).astype(np.uint8).reshape(one.shape) for one in inputs]


def convert(function: Callable[..., Array], inputs: list[jax.ShapeDtypeStruct]) -> Program:
  """Returns an ONNX program of a function; minutes for a body of the shipped size.

  Args:
    function: of one or two arrays, to one array called "picture"; they are called as `INPUTS` says.
    inputs: their shapes.

  Raises:
    UserError: the converter is not installed, or does not know something that the function computes.
  """
  converter = require_converter()
  # Folded by JAX itself first: the converter puts functions of its own in place of jax.numpy's while it traces.
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
  """Returns `Program.check`. Raises UserError unless the program gives what the function gives."""
  runtime = importlib.import_module("onnxruntime")
  options = runtime.SessionOptions()
  options.log_severity_level = 3  # not its remarks on what it leaves out
  session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
  given = check_inputs(inputs)
  (made,) = session.run(None, dict(zip(INPUTS, given)))
  if not np.isfinite(made).all():
    raise UserError(
      "this person's pictures are no finite numbers: the weights are damaged, or were trained at too high a rate"
    )
  error = float(np.abs(made - np.asarray(jax.jit(function)(*given))).max())
  if not error < _LARGEST_ERROR:
    raise UserError(f"the ONNX program differs from JAX by {error:.2g}: this jax2onnx does not convert her rightly")
  return [round(value, 4) for value in made.reshape(-1)[:: max(1, made.size // 64)].tolist()]
