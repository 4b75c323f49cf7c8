"""From motion to pictures: the body's frames from overlapping windows, then the head that repaints each face.

All of it are generators: motion comes in and frames go out one after another, so length costs no memory. Nothing here
sees the truth: face crops and masks come from the motion's pose side.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import parallel
from anchor_jax.config import SampleConfig
from anchor_jax.diffusion.distributed import distribute_windows
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.sampler import sample_clip
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import StreamLayout, init_stream, make_tick, stream_clip
from anchor_jax.diffusion.windows import WindowRule, capacity, pad_windows, plan_windows
from anchor_jax.errors import UserError
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.motion import face
from anchor_jax.motion.motion import Motion, MotionFrame
from anchor_jax.shapes import Array, Key, NdArray, PyTree, UInt8
from anchor_jax.store.weights import NEWEST, CheckpointChoice, read_part

Picture = UInt8[NdArray, "H W 3"]
Embed = Callable[[PyTree, PyTree], PyTree]  # (weights, what is known of some frames) -> their condition
_PIECE = 16  # frames of a whole clip that go through the autoencoder or the pose stem in one call


@dataclasses.dataclass(frozen=True)
class Part:
  """A trained part of a person.

  Attributes:
    networks, weights: what denoises.
    sample: how it samples.
    appearance: a reference picture kept while training.
    step: of the training.
  """

  networks: Networks
  weights: PyTree
  sample: SampleConfig
  appearance: UInt8[NdArray, "H W 3"]
  step: int


@dataclasses.dataclass(frozen=True)
class Person:
  """A trained person: the body, and the head unless it was not trained."""

  body: Part
  head: Part | None


def load_person(workdir: Path, which: CheckpointChoice = NEWEST, use_head: bool = True) -> Person:
  """Reads a workdir's body and, if there and wanted, its head. Raises UserError where there is no trained body."""
  body = load_part(workdir, "body", which)
  has_head = use_head and (workdir / "head" / "config.json").exists()
  return Person(body, load_part(workdir, "head", which) if has_head else None)


def person_flags(parser: argparse.ArgumentParser) -> None:
  """The flags that say which person: what `chosen_person` reads."""
  parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="the --workdir of training")
  parser.add_argument(
    "--checkpoint-step", default="newest", metavar="STEP", help="newest, best (lowest validation loss) or a number"
  )
  parser.add_argument(
    "--base", default="", metavar="DIR", help="the weights that adapters change (default: as trained)"
  )


def chosen_person(args: argparse.Namespace, use_head: bool = True) -> Person:
  """The person that the flags name."""
  return load_person(args.checkpoint, CheckpointChoice(step=args.checkpoint_step, base=args.base), use_head)


def load_part(workdir: Path, part: str, which: CheckpointChoice = NEWEST) -> Part:
  """Reads one trained part of a workdir."""
  stored = read_part(workdir, part, which)
  if stored.appearance is None:
    raise UserError(f"{workdir / part} has no appearance.png: train this part again")
  return Part(stored.networks, jax.device_put(stored.weights), stored.config.sample, stored.appearance, stored.step)


def animate(
  person: Person,
  motion: Motion,
  appearance: UInt8[NdArray, "H W 3"] | None = None,
  seed: int = 0,
  start: int = 0,
  mesh: Any = None,
) -> Iterator[tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W 3"]]]:
  """The person in motion: for each frame from `start` on (head repainted, as the body model left it).

  Args:
    person: who.
    motion: what she does.
    appearance: another picture of her than the one kept from training.
    seed: names the noise.
    start: first frame wanted; it and all after it are those of a run from the beginning, bit for bit.
    mesh: devices to spread the windows over, of `parallel.sampling_mesh`.
  """
  body_key, head_key = jax.random.split(jax.random.key(seed))
  # The head works on groups of frames too: both begin where a run from the start would have begun a group.
  head_start = start if person.head is None else _first_needed(person.head.sample, start, mesh)
  begin = _first_needed(person.body.sample, head_start, mesh)
  frames, again = itertools.tee(motion.frames(begin))
  bodies = paint_body(person.body, frames, motion, appearance, body_key, head_start, mesh)
  if person.head is None:
    yield from ((body, body) for body in bodies)
    return
  moves = itertools.islice(again, head_start - begin, None)
  pairs = enumerate(zip(bodies, moves, strict=False), start=head_start)
  yield from paint_heads(person.head, pairs, motion.length, head_key, start, mesh)


def paint_body(
  part: Part,
  frames: Iterable[MotionFrame],
  motion: Motion,
  appearance: UInt8[NdArray, "H W 3"] | None,
  key: Key[Array, ""],
  start: int = 0,
  mesh: Any = None,
) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """The body's frames from `start` on, by batch-overlapped temporal denoising; `frames` begin where that needs it."""
  appearance = part.appearance if appearance is None else appearance
  appearance = cv2.resize(appearance, (motion.size, motion.size), interpolation=cv2.INTER_AREA)
  embed = lambda weights, block: {"pose": part.networks.embed_pose(weights, block["pose"][None])[0]}
  items = ({"pose": frame.pose} for frame in frames)
  return _Painter(part, embed, appearance, motion.size, key, mesh).pictures(items, motion.length, start)


def paint_heads(
  part: Part,
  pairs: Iterable[tuple[int, tuple[Picture, MotionFrame]]],
  length: int | None,
  key: Key[Array, ""],
  start: int = 0,
  mesh: Any = None,
) -> Iterator[tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W 3"]]]:
  """Repaints each frame's face: crop by the pose's landmarks, inpaint, blend back; yields (repainted, as it was).

  `pairs` are numbered, and begin where the frames from `start` on need it.
  """
  networks, size = part.networks, part.appearance.shape[0]
  waiting: collections.deque[tuple] = collections.deque()  # frames whose faces are still in the stream

  def crops():
    for number, (frame, move) in pairs:
      to_crop = face.face_transform(move.landmarks, size)
      keep = face.keep_mask(move.face_mask, to_crop, size)
      if number >= start:
        waiting.append((frame, to_crop, keep))
      crop = face.crop_image(frame, to_crop, size, extend=True)
      yield {"pose": face.crop_image(move.pose, to_crop, size), "crop": crop, "keep": keep}

  def embed(weights, block):
    inpaint = networks.inpaint_condition(weights, to_signed(block["crop"]), block["keep"][..., 0] > 127)
    return {"pose": networks.embed_pose(weights, block["pose"][None])[0], "inpaint": inpaint}

  painter = _Painter(part, embed, part.appearance, size, key, mesh)
  for head in painter.pictures(crops(), length, start):
    frame, to_crop, keep = waiting.popleft()
    yield face.paste_face(frame, head, to_crop, keep), frame


def _rule(sample: SampleConfig) -> WindowRule:
  return WindowRule(sample.window, sample.overlap, sample.tail, sample.window_weights)


def _layout(sample: SampleConfig, mesh: Any) -> StreamLayout:
  devices = parallel.window_devices(mesh)
  return StreamLayout(_rule(sample), sample.steps, -(-sample.windows_per_batch // devices) * devices)


def _first_needed(sample: SampleConfig, start: int, mesh: Any) -> int:
  """The frame a stream must begin with so that `start` comes out as if it had begun at 0."""
  if _at_once(sample):
    return 0
  layout = _layout(sample, mesh)
  return max(0, layout.first_frame(layout.warm_up(start)))


def _at_once(sample: SampleConfig) -> bool:
  return sample.whole_clip or sample.tail == "loop"


class _Painter:
  """One part of a person at work on one video: from what is known of frames to pictures."""

  def __init__(self, part: Part, embed: Embed, appearance: Picture, size: int, key: Key[Array, ""], mesh: Any):
    networks, self.sample, self.weights = part.networks, part.sample, part.weights
    self.embed, self.mesh = embed, mesh
    # All frames start from the same noise, as in the reference: what is the same stays the same from frame to frame.
    side = size // networks.model.vae.stride
    self.noise = jax.random.normal(key, (side, side, networks.model.unet.out_channels))
    context = jax.jit(lambda weights, image: networks.encode_appearance(weights, image[None])[0])(
      part.weights, appearance
    )
    null = part.weights["null_context"]
    self.branches = make_branches(context, null, self.sample.guidance, self.sample.guidance_interval)
    self.solver = make_solver(self.sample.solver, networks.model.schedule, self.sample.steps)
    self.decode = jax.jit(lambda weights, z: jnp.round(networks.decode(weights, z) * 255).astype(jnp.uint8))
    scale = self.sample.conditioning_scale
    self.denoise = lambda weights: lambda *inputs: networks.denoise(weights, *inputs, conditioning_scale=scale)

  def pictures(self, items: Iterable[PyTree], length: int | None, start: int) -> Iterator[Picture]:
    """Frames from `start` on; `items` begin where `_first_needed` says."""
    pieces = self._whole_clip(items) if _at_once(self.sample) else self._stream(items, length, start)
    for first, latents in pieces:
      if first + len(latents) > start:
        # Always as many as in the first piece, so that nothing compiles twice.
        full = jnp.pad(latents, [(0, self.piece - len(latents))] + [(0, 0)] * 3, mode="edge")
        yield from np.asarray(self.decode(self.weights, full))[max(0, start - first) : len(latents)]

  def _stream(self, items: Iterable[PyTree], length: int | None, start: int) -> Iterator[tuple[int, Array]]:
    layout = _layout(self.sample, self.mesh)
    self.piece = layout.block
    predict = None if self.mesh is None else distribute_windows(layout, self.mesh)
    noise = jnp.broadcast_to(self.noise, (layout.block, *self.noise.shape))
    embed = jax.jit(self.embed)

    @functools.partial(jax.jit, donate_argnums=2)
    def tick(weights, branches, state, *arguments):
      return make_tick(self.denoise(weights), self.solver, layout, branches, predict)(state, *arguments)

    @jax.jit
    def begin(condition):
      return init_stream(layout, len(self.branches), noise, condition)

    items = iter(items)
    first = next(items, None)
    if first is None:
      raise UserError("the motion has no frame")
    block = jax.tree.map(lambda leaf: np.zeros((layout.block, *np.shape(leaf)), leaf.dtype), first)
    yield from stream_clip(
      lambda *arguments: tick(self.weights, self.branches, *arguments),
      layout,
      begin(embed(self.weights, block)),
      itertools.chain([first], items),
      lambda block: (noise, embed(self.weights, block)),
      length,
      layout.warm_up(start),
    )

  def _whole_clip(self, items: Iterable[PyTree]) -> Iterator[tuple[int, Array]]:
    stacked, rule = jax.tree.map(lambda *leaves: np.stack(leaves), *items), _rule(self.sample)
    count, self.piece = len(jax.tree.leaves(stacked)[0]), _PIECE
    plan = plan_windows(rule, count)
    rows = capacity(rule.count(count))
    frames = -(-(rows * rule.stride + rule.overlap) // _PIECE) * _PIECE  # no fewer than so many windows could hold
    embed, conditions = jax.jit(self.embed), []
    for i in range(0, frames, _PIECE):
      rest = np.minimum(np.arange(i, i + _PIECE), count - 1)
      conditions.append(embed(self.weights, jax.tree.map(lambda leaf, rest=rest: leaf[rest], stacked)))
    condition = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *conditions)

    @jax.jit
    def run(weights, plan, branches, condition):
      noise = jnp.broadcast_to(self.noise, (frames, *self.noise.shape))
      together = self.sample.windows_per_batch
      return sample_clip(self.denoise(weights), self.solver, plan, noise, branches, condition, together)

    latents = run(self.weights, pad_windows(plan, rows), self.branches, condition)
    yield from ((i, latents[i : min(i + _PIECE, count)]) for i in range(0, count, _PIECE))
