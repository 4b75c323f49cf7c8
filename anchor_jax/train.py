"""Trains one part (vae, body or head) of a workdir.

Example, the two parts of one person, starting from the weights that come with the package:
  python -m anchor_jax.train --config=configs/studio_finetune.py:body --workdir=runs/ana --config.data.path=data/ana
  python -m anchor_jax.train --config=configs/studio_finetune.py:head --workdir=runs/ana --config.data.path=data/ana

Started again with the same flags, it goes on from the newest checkpoint. Any setting of the config can be given as
--config.key=value (for example --config.steps=50 --config.optimizer.learning_rate=1e-4).
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from anchor_jax import parallel, runtime
from anchor_jax.cli import command
from anchor_jax.config import RunConfig, run_config
from anchor_jax.config_files import with_found_config
from anchor_jax.data.faces import head_source
from anchor_jax.data.loader import make_loader
from anchor_jax.data.records import open_prepared
from anchor_jax.data.sources import Source, load
from anchor_jax.errors import UserError
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks, scale_latents, to_signed
from anchor_jax.store.settings import write_settings
from anchor_jax.store.weights import frozen_names, initial_weights, kept_weights, trained_keys, write_folder
from anchor_jax.training.aot import tell_fit
from anchor_jax.training.cache import encode_records
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.chips import chip_of, step_flops
from anchor_jax.training.preemption import Preempted, listening
from anchor_jax.training.preview import first_frame_of_clips, preview, save_appearance
from anchor_jax.training.report import Report
from anchor_jax.training.state import State, make_state
from anchor_jax.training.step import jit_step, step_of
from anchor_jax.training.validation import evenly_spaced, make_validation, split_records


def train(
  config: RunConfig, workdir: Path, devices: Sequence[Any] | None = None, profile: bool = False
) -> dict[str, float]:
  """Runs, or goes on with, the training of config.part in WORKDIR/PART; returns the last logged metrics.

  Args:
    config: all settings.
    workdir: the person's folder.
    devices: those of the mesh; by default all.
    profile: trace three steps into WORKDIR/PART/profile.

  Raises:
    UserError: something doesn't fit together, or the loss is not finite for too long.
    Preempted: SIGTERM came; all up to the last step is saved.
  """
  folder = workdir / config.part

  # ---- mesh and input ------------------------------------------------------------------------------------------------
  mesh = parallel.make_mesh(config.mesh, devices)
  batch_size = config.data.batch_size
  parallel.check_batch(mesh, batch_size)
  networks, weights = initial_weights(config)
  weights |= kept_weights(folder)
  config = dataclasses.replace(config, model=networks.model)
  source, fields = _examples(config)
  cached = {}
  if config.data.cache and config.part != "vae":
    cached = encode_records(source, networks, weights, with_context=not config.train_image_encoder)
    fields += tuple("reference_context" if name == "context" else name for name in cached)
  batches_of = functools.partial(
    make_loader, source, seed=config.seed, fields=fields, cached=cached, clip=config.data.clip_frames
  )
  learned, held_out = split_records(len(source), config.data.validation)
  index, count = parallel.process_shard(mesh)
  share: dict[str, Any] = {"batch_size": batch_size, "process_index": index, "process_count": count}
  batches = batches_of(records=learned, workers=config.data.workers, **share)
  # What the pictures show is the same in every process, and all through the run.
  shown = evenly_spaced(held_out if len(held_out) else learned)
  shown = first_frame_of_clips(next(batches_of(records=shown, references=learned, batch_size=8)))

  # ---- state -------------------------------------------------------------------------------------------------------
  names = trained_keys(config)
  optimizer, step = step_of(config, networks)
  place = lambda tree: jax.device_put(tree, parallel.parameter_shardings(tree, mesh))
  state = place(make_state(place({name: weights[name] for name in names}), optimizer, config))
  unchanged = {name: weights[name] for name in frozen_names(config)}  # on the host, until it is written
  frozen = place(unchanged)
  del weights

  # ---- step ----------------------------------------------------------------------------------------------------------
  step = jit_step(step, state)
  key = jax.random.key(config.seed)
  validate = None
  if len(held_out):
    kept = itertools.islice(batches_of(records=held_out, references=learned, **share), -(-len(held_out) // batch_size))
    validate = make_validation(config, networks, list(kept), mesh)

  # ---- checkpoints ---------------------------------------------------------------------------------------------------
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(Checkpoints(folder, config.keep))
    restored = checkpoints.restore(state, batches.get_state())
    first_process = jax.process_index() == 0  # the one that writes what all have in common
    if first_process and (restored is None or not (folder / "base").exists()):
      write_folder(folder / "base", networks, unchanged, tuple(unchanged), "float32")
    del unchanged
    if restored is not None:
      state, position = restored
      batches.set_state(position)
    start = int(state.step)
    if first_process:
      write_settings(folder, config)
    stack.enter_context(parallel.use_mesh(mesh))
    preemption = stack.enter_context(listening())
    report = stack.enter_context(Report(folder, config.steps, start, batch_size, config.part, active=first_process))

    # ---- the loop ----------------------------------------------------------------------------------------------------
    logged: dict[str, float] = {}
    for number in range(start + 1, config.steps + 1):
      host_batch = next(batches)
      clock, arguments = time.monotonic(), (state, frozen, parallel.shard_batch(host_batch, mesh), key)
      if number == start + 1:
        step = step.lower(*arguments).compile()
        report.compiled(time.monotonic() - clock, step_flops(step, config), chip_of(mesh.devices.flat[0]))
        if first_process:
          save_appearance(folder, first_frame_of_clips(host_batch))
      if profile and number == start + 3:  # the first ones are not like the others
        jax.profiler.start_trace(str(folder / "profile"))
      state, metrics = step(*arguments)
      if profile and number == start + 5:
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()
      stopping = preemption.after(number)
      last = number == config.steps
      report.advance()
      if last or (config.log_every and number % config.log_every == 0):
        logged = {name: float(value) for name, value in jax.device_get(metrics).items()}
        report.log(number, logged)
      if last or number % config.max_skipped == 0:
        _refuse_divergence(int(state.skipped_in_a_row), number, config, checkpoints)
      if last and config.part == "vae":
        state = _with_unit_latents(networks, state, [parallel.shard_batch(next(batches), mesh) for _ in range(8)])
      if last or stopping or (config.checkpoint_every and number % config.checkpoint_every == 0):
        report.paused(number)
        validation_loss = None
        if validate and not stopping:  # who is to stop has no time for it
          validation_loss = validate(state.best_weights(), frozen)
          report.log(number, {"validation_loss": validation_loss})
        checkpoints.save(number, state, batches.get_state(), validation_loss)
        report.paused(number)
      if config.preview_every and (last or (number % config.preview_every == 0 and not stopping)):
        best = merge_weights(frozen, state.best_weights(), config.lora)
        report.picture(number, preview(networks, best, shown, config, parallel.replicated(mesh)))
        report.paused(number)
      if stopping and not last:
        checkpoints.wait()
        raise Preempted(f"stopped by SIGTERM after step {number}, which is saved: start again to go on")
  return logged


def _refuse_divergence(in_a_row: int, number: int, config: RunConfig, checkpoints: Checkpoints) -> None:
  """Stops a run whose last steps had no finite loss and gradient; all of them left the weights as they were."""
  if in_a_row < min(config.max_skipped, number):
    return
  kept = checkpoints.newest()
  saved = "there is no checkpoint" if kept is None else f"the last good checkpoint is that of step {kept}"
  raise UserError(
    f"no finite loss and gradient in the last {in_a_row} of {number} steps: lower config.optimizer.learning_rate;"
    f" {saved}"
  )


def _examples(config: RunConfig) -> tuple[Source, tuple[str, ...]]:
  """The records a part trains on, and their fields."""
  source = open_prepared(config.data.path)
  _check_sizes(config, source.size)
  if config.part == "head":
    return head_source(source, config.data.crop), ("frame", "pose", "keep_mask", "reference_frame")
  fields = ("frame",) if config.part == "vae" else ("frame", "pose", "reference_frame")
  if config.data.in_memory:
    return load(source, [name for name in fields if not name.startswith("reference_")], progress="read"), fields
  return source, fields


def _with_unit_latents(networks: Networks, state: State, batches: Any) -> State:
  """The state whose autoencoder makes latents of unit mean square, which is what the noise schedule takes them for."""
  encode = jax.jit(lambda weights, frames: networks.encode_moments(weights, to_signed(frames))[0])
  power = [jnp.mean(jnp.square(encode(state.best_weights(), batch["frame"]))) for batch in batches]
  factor = jnp.mean(jnp.stack(power)) ** -0.5
  rescale = lambda weights: None if weights is None else {"vae": scale_latents(weights["vae"], factor)}
  return dataclasses.replace(state, weights=rescale(state.weights), ema=rescale(state.ema))


def _check_sizes(config: RunConfig, size: int) -> None:
  """Refuses picture sizes that the networks can't halve as often as they must."""
  model = config.model
  side = config.data.crop if config.part == "head" else size
  multiple = model.vae.stride * (1 if config.part == "vae" else 2 ** (len(model.unet.block_out_channels) - 1))
  if side % multiple:
    raise UserError(f"pictures of {side} pixels don't fit these networks: use a multiple of {multiple}")
  if config.part != "vae" and model.controlnet.stem_stride != model.vae.stride:
    raise UserError(
      f"the pose branch shrinks by {model.controlnet.stem_stride} and the autoencoder by {model.vae.stride}: they must"
      " agree (model.controlnet.conditioning_embedding_out_channels)"
    )


@command
def main() -> None:
  """The command line."""
  config_file = config_flags.DEFINE_config_file("config", None, "Config file, FILE.py or FILE.py:ARGUMENT.")
  workdir = flags.DEFINE_string("workdir", None, "Folder of the person: checkpoints and reports go to WORKDIR/PART.")
  coordinator = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX can't find it by itself.")
  processes = flags.DEFINE_integer("processes", None, "Number of processes.")
  process = flags.DEFINE_integer("process", None, "Number of this process, from 0.")
  topology = flags.DEFINE_string("aot", None, "TPU topology, as v5e:4x4: compile the step for it and say if it fits.")
  profile = flags.DEFINE_bool("profile", False, "Trace three steps into WORKDIR/PART/profile.")
  if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
    print(f"{__doc__}\nFlags:\n  --config=FILE.py[:ARGUMENT]\n  --workdir=DIR\n  --config.key=value")
    print("  --coordinator=HOST:PORT --processes=COUNT --process=INDEX   (several processes that JAX can't find)")
    print("  --profile   (trace three steps, for TensorBoard's profiler)")
    print(
      "  --aot=v5e:4x4   (train nothing: compile the step for a TPU pod, and say whether it fits; needs the tpu extra,"
      "\n                   and a --config.data.batch_size that the chips can share)"
    )
    return
  try:
    rest = flags.FLAGS(with_found_config(sys.argv))[1:]
    config = run_config(config_file.value) if config_file.value else None
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
    told = " ".join(str(error).replace("\\n", " ").split()).strip("'\"")
    raise UserError(f"{told[-300:]} (see python -m anchor_jax.train --help)") from error
  if rest or config is None or not (workdir.value or topology.value):
    raise UserError("give --config=FILE.py[:ARGUMENT] and --workdir=DIR (see python -m anchor_jax.train --help)")
  if topology.value or not workdir.value:
    sys.exit(0 if tell_fit(topology.value or "", config) else 1)
  runtime.enable_compilation_cache()
  runtime.initialize_distributed(coordinator.value, processes.value, process.value)
  try:
    metrics = train(config, Path(workdir.value), profile=profile.value)
  except Preempted as reason:
    print(reason.told, flush=True)
    raise
  shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
  print(f"trained {config.part} in {workdir.value}: {shown}")


if __name__ == "__main__":
  main()
