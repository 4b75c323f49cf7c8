"""The JAX side of `accelerator.py`: SCRIPT STAGE TASK.json ANSWER.json."""

import functools
import gzip
import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_draws import attention_tflops, draw, inputs, median_seconds, reason
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.config.run import ModelConfig, OptimizerConfig, RunConfig
from anchor_jax.core.shapes import PyTree
from anchor_jax.formats.names import from_torch, to_torch, torch_name, torch_shape
from anchor_jax.models.attention import attention
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.training.step import jit_step, make_optimizer, make_state, make_step

TRAINED = ("controlnet", "unet")
_COMPARED = 256  # numbers compared of each gradient


class Model:
  """The networks of one size with random weights, and their workloads."""

  def __init__(self, task: dict[str, Any], name: str, dtype: str):
    fields: dict[str, Any] = {
      key: tuple(v) if isinstance(v, list) else v for key, v in task["models"][name]["unet"].items()
    }
    unet = UNetConfig(**fields)
    model = ModelConfig(unet=unet, controlnet=ControlNetConfig.from_unet(unet, tuple(task["stem"])))
    self.networks = Networks(model, dtype)
    for role in TRAINED:
      path = Path(task["folder"]) / f"{name}_{role}.json"
      path.write_text(json.dumps(getattr(model, role).to_json()))
    arrays = inputs(task, name, model.image_encoder.tokens, unet.cross_attention_dim, unet.block_out_channels[0])
    self.inputs = jax.device_put({key: jnp.asarray(value) for key, value in arrays.items()})
    shapes = jax.eval_shape(self.networks.init, jax.random.key(0))
    self.shapes = {role: flatten_dict(shapes[role]) for role in TRAINED}

  def drawn(self) -> PyTree:
    """The weights that are the same on the torch side."""
    drawn = {
      role: {
        path: from_torch(path, draw(f"{role}.{torch_name(path)}", torch_shape(path, leaf.shape)))
        for path, leaf in leaves.items()
      }
      for role, leaves in self.shapes.items()
    }
    return jax.device_put({role: unflatten_dict(leaves) for role, leaves in drawn.items()})

  def random(self) -> PyTree:
    """Weights of the same sizes, drawn on the device."""

    @jax.jit
    def make(key):
      def one(path, leaf, key):
        if path[-1] in ("bias", "scale"):
          return jnp.full(leaf.shape, float(path[-1] == "scale"), jnp.float32)
        return jax.random.normal(key, leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5

      count = sum(len(leaves) for leaves in self.shapes.values())
      keys = iter(jax.random.split(key, count))
      return {
        role: unflatten_dict({path: one(path, leaf, next(keys)) for path, leaf in leaves.items()})
        for role, leaves in self.shapes.items()
      }

    return make(jax.random.key(0))

  def predict(self, weights: PyTree, batch: dict[str, Any]) -> jax.Array:
    """The prediction for a batch of frames; embeds the poses too, as training does."""
    params = {"params": {role: weights[role] for role in TRAINED}}
    inputs: Any = FrameInputs(self.networks.denoiser.apply(params, batch["pose"][:, None], method="embed_pose"))
    latents = batch["latents"][:, None]
    return self.networks.denoise(weights, latents, batch["timesteps"], batch["context"], inputs)[:, 0]

  def window(self, weights: PyTree, clip: dict[str, Any]) -> jax.Array:
    """The prediction for one window, with attention over all of its frames."""
    names = ("window_latents", "window_timesteps", "window_context")
    latents, timesteps, context = (clip[name] for name in names)
    return self.networks.denoise(weights, latents, timesteps, context, FrameInputs(clip["window_pose"]))[0]

  def loss(self, weights: PyTree, batch: dict[str, Any]) -> jax.Array:
    """The mean squared error of the prediction."""
    return jnp.mean(jnp.square(self.predict(weights, batch) - batch["target"]))


def peak_bytes() -> int | None:
  """The peak memory use of the device; None if JAX does not track it (on CPUs)."""
  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def compiled(function: Any, *arguments: Any) -> tuple[Any, float]:
  """The compiled function, and the seconds that compiling took."""
  started = time.perf_counter()
  program = (function if hasattr(function, "lower") else jax.jit(function)).lower(*arguments).compile()
  return program, time.perf_counter() - started


def equality(task: dict[str, Any], name: str = "ours") -> dict[str, Any]:
  """Writes prediction, window, loss and gradients in float32 to a file."""
  model = Model(task, "equality", "float32")
  weights = model.drawn()
  with jax.default_matmul_precision("highest"):
    value, gradients = jax.jit(jax.value_and_grad(model.loss))(weights, model.inputs)
    arrays = {
      "forward": jax.jit(model.predict)(weights, model.inputs),
      "window": jax.jit(model.window)(weights, model.inputs),
    }
  flat = {
    f"{role}.{torch_name(path)}": to_torch(path, np.asarray(leaf)).ravel()[:_COMPARED]
    for role in TRAINED
    for path, leaf in flatten_dict(gradients[role]).items()
  }
  file = Path(task["folder"]) / f"equality_{name}.npz"
  gradient = np.concatenate([flat[key] for key in sorted(flat)])
  np.savez(file, allow_pickle=False, loss=np.asarray(value), gradients=gradient, **jax.tree.map(np.asarray, arrays))
  versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
  return {"arrays": str(file), "device": jax.devices()[0].device_kind, "versions": versions}


def train_step(task: dict[str, Any]) -> dict[str, Any]:
  """The trainer's own step with a plain loss: time, memory, and a trace of three steps."""
  model = Model(task, "full", task["dtype"])
  batch = {key: value for key, value in model.inputs.items() if not key.startswith("window")}
  loss = lambda trained, frozen, batch, key: (model.loss(trained, batch), {})
  optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 1000)
  state = make_state(model.random(), optimizer, RunConfig())
  program, seconds = compiled(jit_step(make_step(loss, optimizer, 0.0), state), state, {}, batch, jax.random.key(0))
  held = [state]
  del state

  def run() -> None:
    held[0], metrics = program(held[0], {}, batch, jax.random.key(0))
    jax.block_until_ready((held[0], metrics))

  median = median_seconds(run, task["seconds"])
  with tempfile.TemporaryDirectory() as folder:
    try:
      with jax.profiler.trace(folder):
        for _ in range(3):
          run()
      traced = next(Path(folder).rglob("*.xplane.pb"))
      target = Path(task["output"]) / "profile.xplane.pb.gz"
      target.write_bytes(gzip.compress(traced.read_bytes()))
      profile = target.name
    except Exception as error:  # noqa: BLE001  the profiler may be missing; the times remain valid
      profile = reason(error)
  return {"seconds": median, "compile_s": seconds, "peak_bytes": peak_bytes(), "profile": profile}


def window(task: dict[str, Any]) -> dict[str, Any]:
  """One sampling call of a window, with weights in the compute type as the sampler places them."""
  model = Model(task, "full", task["dtype"])
  kind = jnp.dtype(task["dtype"])
  cast = lambda path, leaf: leaf.astype(kind) if path[-1].key == "kernel" else leaf
  weights = jax.tree_util.tree_map_with_path(cast, model.random())
  arrays = {key: value for key, value in model.inputs.items() if key.startswith("window")}
  program, seconds = compiled(model.window, weights, arrays)
  median = median_seconds(lambda: jax.block_until_ready(program(weights, arrays)), task["seconds"])
  return {"seconds": median, "compile_s": seconds, "peak_bytes": peak_bytes()}


def attentions(task: dict[str, Any]) -> dict[str, Any]:
  """Time and error of each implementation for each shape."""
  gpu, found = jax.default_backend() == "gpu", []
  for shape in task["attention"]:
    batch, tokens, heads, _ = shape
    small = batch * heads * tokens**2 * 4 < 8e9  # bytes of its logits in float32
    for implementation in ("cudnn",) * gpu + ("pieces",) * (not gpu) + ("plain",) * small + ("chunked",):
      one: dict[str, Any] = {"side": "ours", "shape": shape, "implementation": implementation}
      try:
        one |= _attention(shape, implementation, task["dtype"], task["seconds"] / 10)
      except Exception as error:  # noqa: BLE001  reported: not every implementation runs here
        one["failed"] = reason(error)
      found.append(one)
  return {"attention": found}


def _attention(shape: list[int], implementation: str, dtype: str, seconds: float) -> dict[str, float]:
  operands = [jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(0), 3)]
  attend = functools.partial(attention, implementation=implementation)
  forward = jax.jit(attend)
  both = jax.jit(jax.grad(lambda *qkv: attend(*qkv).astype(jnp.float32).sum(), (0, 1, 2)))
  exact = jax.jit(functools.partial(attention, implementation="chunked"))(*(x.astype(jnp.float32) for x in operands))
  spent = median_seconds(lambda: jax.block_until_ready(both(*operands)), seconds)
  return {
    "difference": float(jnp.abs(forward(*operands).astype(jnp.float32) - exact).max()),
    "forward_s": median_seconds(lambda: jax.block_until_ready(forward(*operands)), seconds),
    "both_s": spent,
    "tflops": attention_tflops(shape, spent),
  }


STAGES = {
  "equality": equality,
  "reference": lambda task: equality(task, "reference"),
  "train_step": train_step,
  "window": window,
  "attention": attentions,
}

if __name__ == "__main__":
  name, task_file, answer_file = sys.argv[1:]
  answer = STAGES[name](json.loads(Path(task_file).read_text()))
  Path(answer_file).write_text(json.dumps(answer))
