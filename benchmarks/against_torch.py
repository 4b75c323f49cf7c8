"""Compares the training step, forward pass, sampling window and decoding with torch and diffusers: `make bench`.

    python benchmarks/against_torch.py --output=runs/bench

Uses the body of the studio weights, 8 frames of 128 pixels, float32, and the same with all widths doubled (`_x2`,
random weights), on the CPU; both sides read the same weights and inputs. Outputs are compared first; then both sides
run alternately, so that disturbances affect both. Batches are sharded over the cores as in `train`; a window, which is
one example, runs on one device as in `generate`, which decodes on the other core meanwhile. Writes OUTPUT/bench.json:
{"rows": [...], ...}; `rows.py` has the fields.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from rows import Peer, Work, figures, measure, table

from anchor_jax.config.run import DataConfig, MeshConfig, OptimizerConfig, RunConfig
from anchor_jax.core import sharding
from anchor_jax.core.cli import Parser, command
from anchor_jax.core.runtime import divide_cpu
from anchor_jax.core.shapes import PyTree
from anchor_jax.evaluation.results import append_results, record_flag
from anchor_jax.files.outputs import new_file, prepare_parent
from anchor_jax.formats.diffusers import save_model
from anchor_jax.formats.names import to_torch, torch_name
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import initial_weights
from anchor_jax.training.step import jit_step, make_optimizer, make_state, make_step

FRAMES, SIZE = 8, 128
TRAINED = ("controlnet", "unet")
NAMES = ("train_step", "forward", "window", "decode")
_SECONDS = 480  # after this, few rounds; torch compiles only in the first half
_PRODUCT = 2048  # side of the matrices of the reference product


def body(times: int) -> tuple[Networks, PyTree]:
  """The shipped body, or one `times` as wide with random nonzero weights."""
  networks, weights = initial_weights(RunConfig(init="studio", data=DataConfig(pose_channels="full")))
  if times == 1:
    return networks, weights
  model = networks.model
  wide = lambda config, *names: dataclasses.replace(
    config, **{name: tuple(times * width for width in getattr(config, name)) for name in names}
  )
  model = dataclasses.replace(
    model,
    unet=wide(model.unet, "block_out_channels"),
    controlnet=wide(model.controlnet, "block_out_channels", "conditioning_embedding_out_channels"),
    vae=wide(model.vae, "block_out_channels"),
    refiner=None,
  )
  networks = Networks(model)
  rng = np.random.default_rng(0)

  def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
    noise = rng.normal(size=leaf.shape).astype(np.float32)
    if len(leaf.shape) > 1:
      return noise * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
    return 0.1 * noise + np.float32(path[-1].key == "scale")

  return networks, jax.tree_util.tree_map_with_path(draw, jax.eval_shape(networks.init, jax.random.key(0)))


def inputs(networks: Networks) -> dict[str, dict[str, np.ndarray]]:
  """The arrays of each workload, channel-last; those of a window have a leading axis of one clip."""
  rng = np.random.default_rng(1)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  model = networks.model
  side, context = SIZE // model.vae.stride, (model.image_encoder.tokens, model.unet.cross_attention_dim)
  latents = (FRAMES, side, side, model.unet.out_channels)
  pose = rng.uniform(size=(FRAMES, SIZE, SIZE, model.controlnet.conditioning_channels)).astype(np.float32)
  return {
    "forward": {
      "latents": draw(*latents),
      "timesteps": rng.integers(0, 1000, FRAMES).astype(np.int32),
      "context": draw(FRAMES, *context),
      "pose": pose,
      "target": draw(*latents),
    },
    "window": {
      "latents": draw(1, *latents),
      "timesteps": np.array([500], np.int32),
      "context": draw(1, *context),
      "pose": draw(1, *latents[:-1], model.controlnet.block_out_channels[0]),
    },
    "decode": {"latents": draw(*latents)},
  }


def compiled(function: Any, *arguments: Any, **options: Any) -> tuple[Any, float]:
  """The compiled function, and its GFLOP on all devices as XLA counts them (loop bodies once)."""
  program = (function if hasattr(function, "lower") else jax.jit(function, **options)).lower(*arguments).compile()
  cost = program.cost_analysis()
  devices = len(jax.tree.leaves(program.input_shardings)[0].device_set)
  return program, devices * (cost or {}).get("flops", float("nan")) / 1e9


def works(times: int, folder: Path, only: set[str]) -> Iterator[Work]:
  """The workloads with all widths `times` as large; writes weights and inputs into `folder` first."""
  networks, weights = body(times)
  model, arrays = networks.model, inputs(networks)
  configs = {"unet": model.unet, "controlnet": model.controlnet, "vae": model.vae}
  for name, config in configs.items():
    save_model(folder / name, config, weights[name])
  for name, named in arrays.items():
    np.savez(folder / f"{name}.npz", allow_pickle=False, **named)
  mesh = sharding.make_mesh(MeshConfig().sizes)
  on_one = jax.device_put({name: weights[name] for name in configs})
  weights = jax.device_put(on_one, sharding.replicated(mesh))
  suffix = "" if times == 1 else f"_x{times}"

  def predict(weights: PyTree, batch: dict[str, Any]) -> Any:
    """The prediction for frames; embeds the poses too, as training does."""
    params = {"params": {name: weights[name] for name in TRAINED}}
    inputs: Any = FrameInputs(networks.denoiser.apply(params, batch["pose"][:, None], method="embed_pose"))
    return networks.denoise(weights, batch["latents"][:, None], batch["timesteps"], batch["context"], inputs)[:, 0]

  def simple(kind: str, function: Any, output: str) -> Work:
    one = kind == "window"
    arguments = (
      on_one if one else weights,
      jax.device_put(arrays[kind], None if one else sharding.batch_sharding(mesh)),
    )
    with sharding.use_mesh(None if one else mesh):
      program, gflop = compiled(function, *arguments)
    return Work(
      name=kind + suffix,
      kind=kind,
      folder=folder,
      outputs=lambda: {output: program(*arguments)},
      run=lambda: jax.block_until_ready(program(*arguments)),
      gflop=gflop,
    )

  if "train_step" + suffix in only:
    batch = jax.device_put(arrays["forward"], sharding.batch_sharding(mesh))
    with sharding.use_mesh(mesh):
      step = _train_step("train_step" + suffix, folder, weights, batch, predict)
    yield step
  if "forward" + suffix in only:
    yield simple("forward", predict, "prediction")
  if "window" + suffix in only:

    def window(weights: PyTree, clip: dict[str, Any]) -> Any:
      inputs = FrameInputs(clip["pose"])
      return networks.denoise(weights, clip["latents"], clip["timesteps"], clip["context"], inputs)[0]

    yield simple("window", window, "prediction")
  if "decode" + suffix in only:
    yield simple("decode", lambda weights, batch: networks.decode_unscaled(weights, batch["latents"]), "pictures")


def _train_step(name: str, folder: Path, weights: PyTree, batch: dict[str, Any], predict: Any) -> Work:
  """The workload of the trainer's own step with a plain loss; holds the state, which the step donates."""

  def loss(trained: PyTree, frozen: PyTree, batch: dict[str, Any], key: Any) -> Any:
    del frozen, key
    return jnp.mean(jnp.square(predict(trained, batch) - batch["target"])), {}

  config = OptimizerConfig(warmup_steps=1)
  optimizer = make_optimizer(config, 1000)
  state = make_state(jax.tree.map(jnp.copy, {key: weights[key] for key in TRAINED}), optimizer, RunConfig())
  key = jax.random.key(0)
  program, gflop = compiled(jit_step(make_step(loss, optimizer, 0.0), state), state, {}, batch, key)
  held = [state]

  def step() -> dict[str, Any]:
    held[0], metrics = program(held[0], {}, batch, key)
    return jax.block_until_ready(metrics)

  def outputs() -> dict[str, Any]:
    """The loss, and the clipped gradients, which Adam's first moment holds times (1 - b1)."""
    metrics = step()
    leaves = jax.tree.leaves(held[0].optimizer, is_leaf=_is_adam)
    moments = next(leaf.mu for leaf in leaves if _is_adam(leaf))
    gradients = {
      f"{network}.{torch_name(path)}": to_torch(path, np.asarray(leaf)).ravel() / (1 - config.b1)
      for network in TRAINED
      for path, leaf in flatten_dict(moments[network]).items()
    }
    return {"loss": metrics["loss"], "gradients": np.concatenate([gradients[key] for key in sorted(gradients)])}

  return Work(name, "train_step", folder, outputs, lambda: jax.block_until_ready((step(), held[0])) and None, gflop)


def _is_adam(leaf: Any) -> bool:
  return hasattr(leaf, "mu")


def product_gflops(peer: Peer) -> dict[str, float]:
  """The rate of both sides at a matrix product, in GFLOP/s; the best of 8 runs."""
  a = jax.random.normal(jax.random.key(0), (_PRODUCT, _PRODUCT))
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready(multiply(a, a))
  seconds = []
  for _ in range(8):
    started = time.perf_counter()
    jax.block_until_ready(multiply(a, a))
    seconds.append(time.perf_counter() - started)
  work = 2 * _PRODUCT**3 / 1e9
  return {"ours": work / min(seconds), "torch": work / peer.ask("product", size=_PRODUCT)["seconds"]}


@command
def main() -> None:
  """The command line."""
  parser = Parser("benchmarks.against_torch", __doc__)
  names = [name + suffix for suffix in ("", "_x2") for name in NAMES]
  parser.add_argument("--output", type=Path, default=Path("runs/bench"), metavar="DIR", help="where bench.json goes")
  parser.add_argument("--rows", default=",".join(names), metavar="NAME,NAME", help="rows to measure (default: all)")
  parser.add_argument("--rounds", type=int, default=9, help="runs of each side, of which the medians are taken")
  parser.add_argument("--peer-python", default=sys.executable, help="a Python with torch and diffusers")
  parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="also torch.compile")
  record_flag(parser)
  args = parser.parse_args()
  only = set(args.rows.split(","))
  if only - set(names):
    parser.error(f"--rows={args.rows}: choose from {', '.join(names)}")

  divide_cpu(1000, FRAMES)
  file = args.output / "bench.json"
  prepare_parent(file)
  started, threads = time.monotonic(), os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
  deadline, compile_until = started + _SECONDS, started + _SECONDS / 2
  peer_command = [args.peer_python, str(Path(__file__).with_name("peer_torch.py")), f"--threads={threads}"]
  rows = []
  with Peer(peer_command) as peer, tempfile.TemporaryDirectory() as scratch:
    for times in (1, 2):
      folder = Path(scratch) / f"x{times}"
      if not any(name.endswith("_x2") == (times == 2) for name in only):
        continue
      folder.mkdir()
      for work in works(times, folder, only):
        late = "skipped to keep the run below 10 minutes" if time.monotonic() > compile_until else None
        rows.append(measure(work, peer, args.rounds, late if args.compiled else "not requested", deadline))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    product = product_gflops(peer)
  report = {
    "rows": rows,
    "matrix_product_gflops": product,
    "threads": threads,
    "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    "seconds": time.monotonic() - started,
  }
  with new_file(file) as path:
    path.write_text(json.dumps(report, indent=2) + "\n")
  products = {f"bench/matrix-product/{side}": (value, "GFLOP/s") for side, value in product.items()}
  append_results({what: figure for row in rows for what, figure in figures(row).items()} | products, args.record)
  print(f"\n{table(rows)}")
  print(f"matrix product: {product['ours']:.0f} GFLOP/s in JAX, {product['torch']:.0f} in torch")
  print(f"{file}, after {report['seconds']:.0f} s")


if __name__ == "__main__":
  main()
