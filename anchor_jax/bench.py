"""Benchmarks the sampler: time and memory by clip length, and the TPU compiler's report at full size.

Examples:
  python -m anchor_jax.bench lengths --frames=50,200,1000,5000
  python -m anchor_jax.bench lengths --frames=100,1000,5000 --checkpoint=runs/demo/person --motion=runs/demo/unseen
  python -m anchor_jax.bench lengths --frames=1500,3000 --motion=film.mp4
  python -m anchor_jax.bench readers --data=runs/demo/film
  python -m anchor_jax.bench tpu --topology=v5e:4x4 --mesh=16x1

`lengths` runs the shipped studio body at 32 pixels, as a stream and with the full clip in memory, each length in its
own process; with --checkpoint, it animates that person's body with a looped motion. With --motion alone, a film without
sidecar, it finds the poses of that film, looped to each length: the time until the first one, and memory. `readers`
reads training batches of 8 from a prepared folder with 0, 1 and 2 processes (config.data.workers). `tpu` compiles one
tick of Stable Diffusion 1.5's body at 512 pixels for a TPU pod, without needing one (extra `tpu`); a tick takes one
block of motion and runs one window group per sampling step.
"""

import argparse
import dataclasses
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchor_jax.core.cli import Parser, command
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.results import append_results, record_flag
from anchor_jax.files.shipped import path_or_word
from anchor_jax.landmarks.sidecar import has_sidecar

_SIDE = 8  # height and width of the small run's latents


def one_length(mode: str, length: int, record: Path | None = None) -> str:
  """Returns a row of the table: mode, frames, time per frame, peak memory of this process."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from anchor_jax.config.run import RunConfig
  from anchor_jax.diffusion.sampler import Sampler
  from anchor_jax.diffusion.solvers import make_solver
  from anchor_jax.diffusion.stream import PreparedBlock, StreamFrame
  from anchor_jax.diffusion.windows import WindowRule, plan_clip
  from anchor_jax.models.controlnet import FrameInputs
  from anchor_jax.store.weights import initial_weights

  networks, weights = initial_weights(RunConfig(init="studio"))
  weights = jax.device_put(weights)
  sampler = Sampler(make_solver("dpm++2m", networks.model.schedule, 4), WindowRule(8, 2))
  context = jnp.zeros_like(jnp.asarray(weights["null_context"]))
  noise = jax.random.normal(jax.random.key(0), (_SIDE, _SIDE, networks.model.unet.out_channels))
  cell = (_SIDE, _SIDE, networks.model.controlnet.block_out_channels[0])
  denoise = jax.tree_util.Partial(networks.denoise, weights)

  if mode == "stream":
    block = sampler.layout.block
    starts = jnp.broadcast_to(noise, (block, *noise.shape))

    def prepare(items: dict[str, Any]) -> PreparedBlock:
      features = jnp.broadcast_to(items["pose"][:, None, None, None], (block, *cell))
      return PreparedBlock(starts, FrameInputs(features))

    def run(count: int) -> None:
      frames = (StreamFrame({"pose": np.float32(number % 7)}) for number in range(count))
      for finished in sampler.stream(denoise, frames, prepare, context):
        np.asarray(finished.frames)
  else:
    starts = jnp.broadcast_to(noise, (length, *noise.shape))
    sample = jax.jit(
      lambda denoise, plan, features: sampler.clip(denoise, starts, FrameInputs(features), context, plan=plan)
    )

    def run(count: int) -> None:
      np.asarray(sample(denoise, plan_clip(sampler.rule, count), jnp.zeros((length, *cell))))

  run(min(length, 20) if mode == "stream" else length)  # compiles
  return _row(mode, length, run, 3 if length <= 1000 else 1, record)


def one_person(checkpoint: Path, motion_path: Path, length: int, record: Path | None = None) -> str:
  """Returns a row of the table for a person's body; the motion is looped to `length` frames, pictures are discarded."""
  from anchor_jax.inference.motions import read_motion
  from anchor_jax.inference.person import load

  person = load(checkpoint, head=False)
  motion = read_motion(motion_path, size=person.size, measures=person.measures)
  looped = lambda first: itertools.islice(
    itertools.chain.from_iterable(motion.frames(0) for _ in itertools.count()), first, length
  )

  def run(count: int) -> None:
    for _ in person.animate(dataclasses.replace(motion, length=length, frames=looped).first(count)):
      pass

  run(min(length, 40))  # compiles
  return _row("person", length, run, 1, record)


def one_film(film: Path, length: int, record: Path | None = None) -> str:
  """Returns a row of the table for the poses of a film without sidecar, looped to `length` frames."""
  import resource  # not on Windows

  from anchor_jax.inference.motions import read_motion

  with tempfile.TemporaryDirectory() as folder:
    os.environ["ANCHOR_JAX_TRACKS"] = f"{folder}/tracks"  # so that nothing was found before
    path = Path(folder, f"looped{film.suffix}")
    _loop(film, path, length)
    started = time.monotonic()
    frames = read_motion(path).first(length).frames(0)
    next(frames)
    first = time.monotonic() - started
    count = 1 + sum(1 for _ in frames)
    seconds = time.monotonic() - started
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  figures = {
    "first_frame": (first, "s"),
    "per_frame": (1000 * seconds / count, "ms"),
    "peak_memory": (peak / 1024, "MB"),
  }
  append_results({f"length/film-{count}-frames/{name}": figure for name, figure in figures.items()}, record)
  times = f"{first:10.1f} s to the first{1000 * seconds / count:10.1f} ms a frame"
  return f"film    {count:8d}{times}{peak / 1024:10.0f} MB peak"


def _loop(film: Path, path: Path, length: int) -> None:
  """Writes a film's picture again and again, until it has at least `length` frames; packets are copied."""
  import av

  from anchor_jax.video.container import film_stream

  with av.open(str(film)) as source, av.open(str(path), "w") as output:
    stream = film_stream(source)
    assert stream is not None, "the film was opened before"
    copy = output.add_stream_from_template(stream)
    packets = [(packet.pts, packet.dts, bytes(packet), packet) for packet in source.demux(stream) if packet.size]
    stamps = sorted(pts for pts, *_ in packets)
    span = stamps[-1] - stamps[0] + round((stamps[-1] - stamps[0]) / (len(stamps) - 1))
    for number in range(math.ceil(length / len(packets))):
      for pts, dts, content, old in packets:
        packet = av.Packet(content)
        packet.pts, packet.dts, packet.time_base = pts + number * span, dts + number * span, old.time_base
        packet.is_keyframe, packet.duration, packet.stream = old.is_keyframe, old.duration, copy
        output.mux(packet)


def _row(mode: str, length: int, run: Callable[[int], None], rounds: int, record: Path | None) -> str:
  """The row for `run(length)`: the best time of `rounds` runs, and memory.

  CPU time, summed over threads, is less affected by other programs than wall time.
  """
  import resource  # not on Windows

  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  seconds = cpu_seconds = math.inf
  for _ in range(rounds):
    started, cpu = time.monotonic(), time.process_time()
    run(length)
    seconds, cpu_seconds = min(seconds, time.monotonic() - started), min(cpu_seconds, time.process_time() - cpu)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  figures = {
    "per_frame": (1000 * seconds / length, "ms"),
    "cpu_per_frame": (1000 * cpu_seconds / length, "ms"),
    "peak_memory": (peak / 1024, "MB"),
    "growth": ((peak - before) / 1024, "MB"),
  }
  append_results({f"length/{mode}-{length}-frames/{name}": figure for name, figure in figures.items()}, record)
  memory = f"{peak / 1024:10.0f} MB peak{(peak - before) / 1024:8.0f} MB more than after compiling"
  times = f"{1000 * seconds / length:10.2f} ms a frame{1000 * cpu_seconds / length:10.2f} of CPU"
  return f"{mode:8s}{length:8d}{times}{memory}"


def lengths(counts: list[int], person: list[str], record: list[str]) -> None:
  """Prints the table of times and memory.

  Args:
    counts: numbers of frames.
    person: --checkpoint and --motion; --motion alone for the poses of a film; nothing for the small run.
    record: --record, or nothing.
  """
  for mode in {0: ("stream", "whole"), 1: ("film",), 2: ("person",)}[len(person)]:
    for count in counts:
      flags = [f"--mode={mode}", f"--frames={count}", *person, *record]
      subprocess.run([sys.executable, "-m", "anchor_jax.bench", "one", *flags], check=True)


def readers(folder: Path, batches: int = 100, record: Path | None = None) -> None:
  """Prints how many images per second, each with its reference, 0, 1 and 2 processes read."""
  from anchor_jax.data.loader import make_loader
  from anchor_jax.data.records import open_prepared

  source = open_prepared(folder)
  for workers in range(3):
    fields = {"target": ("frame", "pose", "surface"), "reference": ("frame",)}
    loader = make_loader(source, batch_size=8, seed=0, workers=workers, **fields)
    next(loader)  # starts the worker processes
    started = time.monotonic()
    for _ in range(batches):
      next(loader)
    rate = 8 * batches / (time.monotonic() - started)
    append_results({f"readers/{workers}-processes/images_per_second": (rate, "images/s")}, record)
    print(f"{workers} processes{rate:8.0f} images a second", flush=True)
    del loader


def tpu(topology: str, windows: int, frames: int, together: int, steps: int, record: Path | None = None) -> None:
  """Prints the compiler's report on one tick at full size, per chip."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from anchor_jax.compiler.chips import chip_of
  from anchor_jax.compiler.estimate import estimate
  from anchor_jax.compiler.hlo import collective_bytes
  from anchor_jax.config.presets import stable_diffusion_15
  from anchor_jax.core import sharding as parallel
  from anchor_jax.diffusion.sampler import Sampler
  from anchor_jax.diffusion.solvers import make_solver
  from anchor_jax.diffusion.windows import WindowRule, plan_group
  from anchor_jax.models.controlnet import FrameInputs
  from anchor_jax.models.networks import Networks
  from anchor_jax.training.compiling import topology_devices

  devices = topology_devices(topology)
  if windows * frames != len(devices):
    raise UserError(f"--mesh={windows}x{frames} is not the {len(devices)} chips of {topology}")
  mesh = parallel.make_mesh((windows, 1, 1, frames), devices)
  model = stable_diffusion_15("body", remat=False)
  networks = Networks(model, "bfloat16")
  sampler = Sampler(make_solver("ddim", model.schedule, steps), WindowRule(16, 4), together, guidance=7.5, mesh=mesh)
  put = lambda shape, dtype, *spec: jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, jax.P(*spec)))
  shapes = jax.eval_shape(networks.init, jax.random.key(0))
  weights = {name: jax.tree.map(lambda x: put(x.shape, jnp.bfloat16), shapes[name]) for name in ("unet", "controlnet")}
  tokens = (2, model.image_encoder.tokens, model.unet.cross_attention_dim)
  side, width = 64, model.controlnet.block_out_channels[0]
  block = lambda channels, dtype: put((sampler.layout.block, side, side, channels), dtype, parallel.DATA)
  latents, pose = block(4, jnp.float32), block(width, jnp.bfloat16)
  init = lambda contexts, *block: sampler.init_state(sampler.branches(*contexts), *block)
  state = jax.eval_shape(init, put(tokens, jnp.float32), latents, FrameInputs(pose))
  state = sampler.place_state(state, lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding))
  plan = jax.tree.map(lambda x: np.stack([x] * steps), plan_group(sampler.rule, 0, sampler.layout.group_size, None))
  plan = jax.tree.map(lambda x: put(x.shape, x.dtype), plan)
  bound = put((), jnp.int32)

  def run(weights, contexts, *rest):
    denoise = lambda *inputs: networks.denoise(weights, *inputs, conditioning_scale=2.0)
    return sampler.tick(denoise, sampler.branches(*contexts), *rest)

  started = time.monotonic()
  with parallel.use_mesh(mesh):
    lowered = jax.jit(run, donate_argnums=2).lower(
      weights, put(tokens, jnp.float32), state, latents, FrameInputs(pose), plan, (bound, bound)
    )
    compiled = lowered.compile()
  memory, chip = compiled.memory_analysis(), chip_of(devices[0])
  assert memory is not None  # the TPU compiler always reports it
  gb = lambda count: f"{count / 1e9:.2f} GB"
  figures = {
    "arguments": (memory.argument_size_in_bytes / 1e9, "GB"),
    "temporaries": (memory.temp_size_in_bytes / 1e9, "GB"),
  }
  print(f"{topology}, windows over {windows}, frames over {frames}, {together} windows of 16 at a time, {steps} steps")
  print(f"arguments   {gb(memory.argument_size_in_bytes)} a chip of {gb(chip.memory) if chip else '?'}")
  print(f"temporaries {gb(memory.temp_size_in_bytes)}")
  for kind, count in collective_bytes(compiled.as_text() or "").items():
    print(f"{kind:20s}{gb(count)} (in the program's text; the loop over steps counts once)")
  if chip and chip.clock:  # in steady state every level of the state holds a group, as does each round of the loop
    estimated = estimate(compiled.as_text() or "", chip, unknown_trips=steps)
    figures["estimated_time"] = (estimated.seconds, "s")
    print(estimated.table())
  print(f"compiled in {time.monotonic() - started:.0f} s")
  row = f"{topology.replace(':', '-')}-{windows}x{frames}-{steps}-steps"
  append_results({f"tpu-tick/{row}/{name}": figure for name, figure in figures.items()}, record)


def _counts(text: str) -> list[int]:
  try:
    return [int(number) for number in text.replace("x", ",").split(",")]
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text} is not a list of integers such as 50,200") from None


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.bench", __doc__)
  parser.add_argument("what", choices=("lengths", "readers", "tpu", "one"))
  parser.add_argument("--frames", type=_counts, default=[50, 200, 1000, 5000], metavar="N,N", help="clip lengths")
  parser.add_argument("--mode", default="stream", choices=("stream", "whole", "person", "film"), help="for `one`")
  parser.add_argument(
    "--checkpoint", type=path_or_word, metavar="PATH", help="a trained person, for `lengths`; requires --motion"
  )
  parser.add_argument("--motion", type=Path, metavar="PATH", help="a video or a prepared folder")
  parser.add_argument("--data", type=Path, metavar="DIR", help="a prepared folder, for `readers`")
  parser.add_argument("--topology", default="v5e:4x4")
  parser.add_argument("--mesh", type=_counts, default=[16, 1], metavar="WxF", help="mesh: windows x frames")
  parser.add_argument("--together", type=int, help="windows per call (default: one per device on the windows axis)")
  parser.add_argument("--steps", type=int, default=20, help="sampling steps")
  record_flag(parser)
  args = parser.parse_args()
  if args.what == "lengths":
    if args.checkpoint is not None and args.motion is None:
      raise UserError("--checkpoint needs --motion: add it, or leave both out")
    if args.motion is not None and args.checkpoint is None and (args.motion.is_dir() or has_sidecar(args.motion)):
      raise UserError(f"{args.motion} comes with poses: name a film without sidecar, or add --checkpoint")
    person = [f"--{name}={getattr(args, name)}" for name in ("checkpoint", "motion") if getattr(args, name) is not None]
    lengths(args.frames, person, [f"--record={args.record}"] if args.record else [])
  elif args.what == "readers":
    if args.data is None:
      raise UserError("name a prepared folder: --data=DIR")
    readers(args.data, record=args.record)
  elif args.what == "one" and args.mode == "film":
    print(one_film(args.motion, args.frames[0], args.record), flush=True)
  elif args.what == "one" and args.mode == "person":
    print(one_person(args.checkpoint, args.motion, args.frames[0], args.record), flush=True)
  elif args.what == "one":
    print(one_length(args.mode, args.frames[0], args.record), flush=True)
  else:
    windows, frames = args.mesh
    tpu(args.topology, windows, frames, args.together or windows, args.steps, args.record)


if __name__ == "__main__":
  main()
