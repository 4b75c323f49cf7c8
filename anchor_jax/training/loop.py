"""The training loop: one run of one part, from its settings to its last checkpoint."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.compiler.chips import chip_of, step_flops
from anchor_jax.config.run import RunConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.process_errors import come_to, wait_for_processes
from anchor_jax.data.faces import records_with_faces
from anchor_jax.data.identity import records_identity
from anchor_jax.data.records import open_prepared
from anchor_jax.files.outputs import prepare_parent
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks, scale_latents
from anchor_jax.models.pictures import to_signed
from anchor_jax.store.restart import read_started_run, write_started_run
from anchor_jax.store.weights import frozen_names, initial_weights, resumed_weights, trained_keys, write_folder
from anchor_jax.store.workdir import REFERENCE_IMAGE, TEXTURE, newest_step
from anchor_jax.texture.background.film_plate import FILM_PLATE, film_plate_of, write_film_plate
from anchor_jax.texture.stored import write_texture
from anchor_jax.training.batches import check_requested_model, check_sizes, initial_model, open_training_data
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.compiling import (
  check_batch_memory,
  check_step_memory,
  out_of_memory_as_user_error,
  start_compiling,
)
from anchor_jax.training.draws import Batch
from anchor_jax.training.held_out import make_validation, preview, save_reference_image
from anchor_jax.training.perceptual import copy_perceptual_weights, perceptual_weights
from anchor_jax.training.precompute import check_surface
from anchor_jax.training.report import Report, Trace
from anchor_jax.training.signals import StoppedBySignal, catch_stop_signals
from anchor_jax.training.step import State, make_run_step, make_state, training_mesh


def train_part(
  config: RunConfig, workdir: Path, devices: Sequence[Any] | None = None, profile: bool = False
) -> dict[str, float]:
  """Trains config.part in WORKDIR/PART, from its newest checkpoint if any, and returns the last logged metrics.

  Args and errors as of `anchor_jax.train`, which also locks the folder.
  """
  # ---- settings: refuse what is wrong before reading anything large --------------------------------------------------
  folder, requested = workdir / config.part, config
  prepare_parent(folder / "checkpoints")
  previous = read_started_run(folder)
  if previous is not None:
    previous.check_settings(config)
  records = open_prepared(config.data.path)
  identity = records_identity(records.folder, records.meta)
  if previous is not None:
    previous.check_records(config.data.path, identity)
    config = previous.resumed_config(config)
  mesh = training_mesh(config, devices)
  share = sharding.process_shard(mesh)
  check_surface(config.data.pose_channels, records)
  if config.part == "head":
    records_with_faces(records)  # raises UserError without any
  check_batch_memory(config, records.size, share[1])
  if previous is None:
    model = initial_model(config)
    check_sizes(dataclasses.replace(config, model=model), records.size)
    check_requested_model(config, model)
  else:
    check_sizes(config, records.size)

  # ---- input ---------------------------------------------------------------------------------------------------------
  networks, weights = initial_weights(config) if previous is None else resumed_weights(folder, config)
  if previous is None:
    check_requested_model(config, networks.model)
  config = dataclasses.replace(config, model=networks.model)
  check_sizes(config, records.size)
  perceptual = perceptual_weights(config, records.size, None if previous is None else folder)
  step: Any = None
  compiling = None
  if newest_step(folder) < config.steps:
    compiling = start_compiling(config, networks, weights | perceptual, records.size, mesh)
  data = open_training_data(config, records, networks, weights, folder, share, sharding.own_devices(mesh))
  batches, preview_batch = data.training_batches(), data.preview_batch()

  def to_mesh(batch: dict[str, Any]) -> Batch:
    return sharding.shard_batch({side: batch[side] for side in ("target", "reference")}, mesh)

  # ---- state and step ------------------------------------------------------------------------------------------------
  optimizer, _ = make_run_step(config, networks)
  place = lambda tree: jax.device_put(tree, sharding.parameter_shardings(tree, mesh))
  state = place(make_state(place({name: weights[name] for name in trained_keys(config)}), optimizer, config))
  unchanged = {name: weights[name] for name in frozen_names(config)}  # on the host until written
  frozen, key = place(unchanged | perceptual), jax.random.key(config.seed)
  del weights
  validate = None
  if len(data.held_out):
    validate = make_validation(config, networks, data.validation_batches(), to_mesh)

  with contextlib.ExitStack() as stack:
    # ---- checkpoints and files ---------------------------------------------------------------------------------------
    checkpoints = stack.enter_context(Checkpoints(folder, config.keep))
    restored = checkpoints.restore(state, batches.get_state())
    first_process = jax.process_index() == 0  # writes the files that all processes share
    if first_process and restored is None:
      write_folder(folder / "base", networks, unchanged, tuple(unchanged), "float32")
      copy_perceptual_weights(perceptual, folder)
    del unchanged, perceptual
    if restored is not None:
      state, position = restored
      batches.set_state(position)
    start = int(state.step)
    if first_process:
      write_settings(folder, config)
      write_started_run(folder, requested, identity)
      # Without a checkpoint, files of an earlier start may show another person: they are written again.
      missing = lambda name: restored is None or not (folder / name).exists()
      if config.part != "vae" and missing(REFERENCE_IMAGE):
        save_reference_image(folder, data.first_reference())
      if missing(TEXTURE) and (texture := data.first_texture()) is not None:
        write_texture(folder / TEXTURE, texture)
      if config.part == "body" and missing(FILM_PLATE) and (film := film_plate_of(records.folder)) is not None:
        write_film_plate(folder / FILM_PLATE, film)
    stack.enter_context(sharding.use_mesh(mesh))
    size = config.data.batch_size
    report = stack.enter_context(Report(folder, config.steps, start, size, config.part, active=first_process))
    trace = stack.enter_context(Trace(folder / "profile" if profile else None, start, config.steps))
    stack.enter_context(out_of_memory_as_user_error(config))

    # ---- the loop ----------------------------------------------------------------------------------------------------
    if start < config.steps:
      compiling = compiling or start_compiling(config, networks, frozen | state.weights, records.size, mesh)
      step, seconds = compiling.result()
      check_step_memory(step, config, mesh)
      wait_for_processes(f"before step {start + 1} of {config.part}")
      report.compiled(seconds, step_flops(step, config), chip_of(mesh.devices.flat[0]))
    stop = stack.enter_context(catch_stop_signals())  # from here on: before the first step there is nothing to save
    logged: dict[str, float] = {}
    for number in range(start + 1, config.steps + 1):
      position = batches.get_state()
      come_to(f"batch {number}")
      try:
        batch = to_mesh(next(batches))
      except Exception:
        if not stop.requested() or number == start + 1:
          raise
        if checkpoints.newest() != number - 1:  # Ctrl-C also ends the reader processes
          checkpoints.save(number - 1, state, position)
          checkpoints.wait()
        raise StoppedBySignal(number - 1, stop.signal) from None
      come_to(f"step {number}")
      trace.before(number)
      state, metrics = step(state, frozen, batch, key)
      trace.after(number, metrics)
      stopping = stop.requested_after(number)
      last = number == config.steps
      report.advance()
      if last or _every(config.log_every, number):
        logged = {name: float(value) for name, value in jax.device_get(metrics).items()}
        report.log(number, logged)
      if last or _every(config.max_skipped, number):
        _check_divergence(int(state.skipped_in_a_row), number, config, checkpoints)
      if last and config.part == "vae":
        state = _with_unit_latents(networks, state, [to_mesh(next(batches)) for _ in range(8)])
      if last or stopping or _every(config.checkpoint_every, number):
        come_to(f"checkpoint {number}")
        report.paused(number)
        checkpoints.save(number, state, batches.get_state())
        if validate and not stopping:  # a stopping run may have little time left
          checkpoints.wait()  # this step is safe from here on
          validation_loss = validate(state.best_weights(), frozen, stop.requested)
          stopping = stopping or stop.requested()
          if validation_loss is not None:
            report.log(number, {"validation_loss": validation_loss})
            checkpoints.judge(number, validation_loss)
        report.paused(number)
      if config.preview_every and (last or (_every(config.preview_every, number) and not stopping)):
        best = merge_weights(frozen, state.best_weights(), config.lora)
        report.picture(number, preview(networks, best, preview_batch, config, sharding.replicated(mesh)))
        report.paused(number)
      if stopping and not last:
        checkpoints.wait()
        raise StoppedBySignal(number, stop.signal)
  return logged


def _every(steps: int, number: int) -> bool:
  """Whether an action that is due every `steps` steps (0: never) is due after step `number`."""
  return steps > 0 and number % steps == 0


def _check_divergence(in_a_row: int, number: int, config: RunConfig, checkpoints: Checkpoints) -> None:
  """Raises UserError after too many consecutive steps without finite loss and gradient, which changed no weights."""
  if in_a_row < min(config.max_skipped, number):
    return
  newest = checkpoints.newest()
  saved = "there is no checkpoint" if newest is None else f"the last good checkpoint is that of step {newest}"
  raise UserError(
    f"no finite loss and gradient in the last {in_a_row} of {number} steps: lower config.optimizer.learning_rate;"
    f" {saved}"
  )


def _with_unit_latents(networks: Networks, state: State, batches: list[Batch]) -> State:
  """The state with the autoencoder scaled to latents of unit mean square, which the noise schedule assumes."""
  encode = jax.jit(lambda weights, frames: networks.encode_moments(weights, to_signed(frames))[0])
  power = [jnp.mean(jnp.square(encode(state.best_weights(), batch["target"]["frame"]))) for batch in batches]
  factor = jnp.mean(jnp.stack(power)) ** -0.5
  rescale = lambda weights: None if weights is None else {"vae": scale_latents(weights["vae"], factor)}
  return dataclasses.replace(state, weights=rescale(state.weights), ema=rescale(state.ema))
