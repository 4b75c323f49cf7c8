"""From motion to pictures: the body's frames from overlapping windows, then the head, which repaints each face.

Everything is a generator: motion comes in and frames go out one after another, so that length costs no memory. Face
crops and masks come from the motion's pose side; no true frame is read.
"""

import collections
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body import face_crop
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Bool, Float, Key, NdArray, PyTree, UInt8
from anchor_jax.diffusion.distributed import all_devices_sharding, round_up
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.windows import WindowPlan, capacity, pad_windows, plan_windows
from anchor_jax.inference.paste import paste_faces
from anchor_jax.inference.prefetch import in_thread, one_late
from anchor_jax.inference.reference import Reference, square
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.models.pictures import require_finite, to_bytes
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.part import Part
from anchor_jax.texture.channels import PoseChannels, make_pose_channels, needs_texture, to_unit

log = logging.getLogger(__name__)

Picture = UInt8[NdArray, "H W 3"]
# (networks, weights, look-up of further conditions, noise [h w C], a block of frames) -> (noise of the block, condition
# of the block, what its refiner sees), jitted
Prepare = Callable[[Networks, PyTree, PoseChannels, Array, PyTree], tuple[Array, PyTree, PyTree]]
_PIECE = 16  # frames of a whole clip that go through the autoencoder or the pose stem in one call


def animate_parts(
  body: Part,
  head: Part | None,
  motion: Motion,
  reference: Reference | None = None,
  seed: int = 0,
  start: int = 0,
  mesh: Any = None,
) -> Iterator[tuple[Picture, Picture]]:
  """Yields (frame with the face repainted by the head, frame as the body left it) from frame `start` on.

  Args:
    body, head: parts of one person; without a head, both frames are the body's.
    motion: what the person does.
    reference: the reference to use in place of the one kept from training.
    seed: of the noise.
    start: first frame wanted; it and all after it are those of a run from 0, bit for bit.
    mesh: of `parallel.sampling_mesh`, the devices to share the windows; None is one device.
  """
  body_key, head_key = jax.random.split(jax.random.key(seed))
  # Both streams begin where a run from 0 would have begun a block; the body's frames are the head's input.
  head_start = start if head is None else _first_needed(head, mesh, start)
  begin = _first_needed(body, mesh, head_start)
  frames = motion.frames(begin)
  # The head needs each frame of the motion once more, when the body has made its picture, perhaps in another thread.
  again: collections.deque[MotionFrame] = collections.deque()
  if head is not None:
    frames = _kept(frames, again)
  painter = _Painter(body, mesh, motion.size, body_key, reference)
  head_painter = None if head is None else _Painter(head, mesh, head.size, head_key, reference)
  unknown = any(each is not None and each.pose_channels.nothing_known for each in (painter, head_painter))
  if unknown and (reference is None or reference.gather is None):
    log.info("nothing is known of the person's texture: give a prepared folder of her as appearance to show it")
  bodies = _paint_body(painter, frames, motion, reference, head_start)
  if head_painter is None:
    yield from ((frame, frame) for frame in bodies)
    return
  pairs = enumerate(_with_moves(bodies, again, head_start - begin), start=head_start)
  yield from _paint_heads(head_painter, pairs, motion, reference, start)


def _kept(frames: Iterable[MotionFrame], kept: collections.deque[MotionFrame]) -> Iterator[MotionFrame]:
  """The frames, each put into `kept` before it is given."""
  for frame in frames:
    kept.append(frame)
    yield frame


def _with_moves(
  pictures: Iterable[Picture], kept: collections.deque[MotionFrame], skipped: int
) -> Iterator[tuple[Picture, MotionFrame]]:
  """Each picture with its frame of the motion, which is let go; the first picture's is the one after `skipped`."""
  for number, picture in enumerate(pictures):
    if number == 0:
      for _ in range(skipped):
        kept.popleft()
    yield picture, kept.popleft()


def placed_pose_channels(part: Part, reference: Reference | None, mesh: Any = None) -> PoseChannels:
  """The look-up of a part's pose channels, replicated on a mesh: from the film of a reference, else the part's own."""
  kind = part.config.data.appearance
  if reference is None or reference.gather is None or not needs_texture(kind):
    return part.placed_pose_channels(mesh)
  pose_channels = make_pose_channels(kind, reference.texture)
  return jax.device_put(pose_channels, None if mesh is None else sharding.replicated(mesh))


def _first_needed(part: Part, mesh: Any, start: int) -> int:
  return 0 if _in_memory(part) else part.sampler(mesh).first_frame_needed(start)


def _in_memory(part: Part) -> bool:
  return part.sample.whole_clip or part.sample.tail == "loop"


def _paint_body(
  painter: "_Painter", frames: Iterable[MotionFrame], motion: Motion, reference: Reference | None, start: int
) -> Iterator[Picture]:
  """The body's frames from `start` on."""
  picture = painter.part.reference_image if reference is None else reference.picture
  if picture is None:
    raise UserError("these weights come without a picture of the person: give one as appearance (--appearance=IMAGE)")
  items = ({"pose": frame.pose} for frame in frames)
  if painter.pose_channels.kind:
    surface = _surfaces(painter, motion)
    items = ({"pose": frame.pose, "surface": surface(frame)} for frame in frames)
  return painter.pictures(_body_block, items, square(picture, motion.size), motion.length, start)


def _surfaces(painter: "_Painter", motion: Motion) -> Callable[[MotionFrame], UInt8[NdArray, "H W 3"]]:
  """Returns what gives a frame's surface map; where nothing is known of the person, all maps are 0.

  Raises:
    UserError: the person's appearance is of another size than the motion, here; a frame has no map, when it is asked
      for.
  """
  pose_channels, size = painter.pose_channels, motion.size
  known = size if pose_channels.tables is None else pose_channels.tables.plate.shape[0]
  if known != size:
    raise UserError(
      f"the appearance has {known} pixels and the motion {size}: read the motion with size={known}, or prepare the film"
      f" of the appearance again with --size={size}"
    )
  unseen = np.zeros((size, size, 3), np.uint8)

  def surface(frame: MotionFrame) -> UInt8[NdArray, "H W 3"]:
    if pose_channels.nothing_known:
      return unseen
    if frame.surface is None:
      raise UserError(
        "the motion does not say where on the body its pixels lie, which this person needs: prepare its video again"
      )
    return frame.surface

  return surface


def _paint_heads(
  painter: "_Painter",
  pairs: Iterable[tuple[int, tuple[Picture, MotionFrame]]],
  motion: Motion,
  reference: Reference | None,
  start: int,
) -> Iterator[tuple[Picture, Picture]]:
  """Repaints faces: crop by the pose's landmarks, inpaint, blend back; `pairs` are (frame number, (frame, motion))."""
  size, picture = painter.part.size, painter.part.reference_image
  if reference is not None and reference.face is not None:
    picture = reference.face
  elif reference is not None:
    log.info("the position of the face in the given appearance is not known: the head keeps its own reference")
  if picture is None:
    raise UserError("the head has no picture of the face: give a prepared folder as appearance, or leave the head out")
  surface = _surfaces(painter, motion) if painter.pose_channels.kind else None
  waiting: collections.deque[tuple] = collections.deque()  # frames whose faces are still in the stream

  def crops():
    for number, (frame, move) in pairs:
      to_crop = face_crop.face_transform(move.landmarks, size)
      if not np.isfinite(to_crop).all():
        raise UserError(f"frame {number} of the motion does not say where the face is: prepare its video again")
      keep = face_crop.keep_mask(move.face_mask, to_crop, size)
      if number >= start:
        waiting.append((frame, to_crop, keep))
      crop = face_crop.crop_image(frame, to_crop, size, extend=True)
      item = {"pose": face_crop.crop_image(move.pose, to_crop, size), "crop": crop, "keep": keep}
      if surface is not None:
        item |= {"surface": surface(move), "places": face_crop.crop_places(to_crop, size, (motion.size, motion.size))}
      yield item

  repainted = painter.pictures(_head_block, crops(), square(picture, size), motion.length, start)
  # On a CPU OpenCV is faster than a batch.
  yield from _put_back(repainted, waiting, 1 if sharding.platform() == "cpu" else _PIECE)


def _put_back(
  repainted: Iterable[Picture], waiting: collections.deque[tuple], at_once: int
) -> Iterator[tuple[Picture, Picture]]:
  """Frames with their repainted faces and without; `waiting` has (frame, transform, keep mask) of each, in order."""
  pictures = iter(repainted)
  while faces := list(itertools.islice(pictures, at_once)):
    frames, transforms, keeps = zip(*(waiting.popleft() for _ in faces))
    if at_once == 1:
      yield face_crop.paste_face(frames[0], faces[0], transforms[0], keeps[0]), frames[0]
    else:
      rows = [min(row, len(faces) - 1) for row in range(at_once)]  # the last one again, so that nothing compiles twice
      stacked = (np.stack([part[row] for row in rows]) for part in (frames, faces, transforms, keeps))
      yield from zip(np.asarray(paste_faces(*stacked)), frames)


@functools.partial(jax.jit, static_argnums=0)
def _body_block(
  networks: Networks, weights: PyTree, pose_channels: PoseChannels, noise: Float[Array, "h w C"], block: PyTree
):
  pose = block["pose"]
  looked_up = pose_channels(block["surface"], block.get("places")) if "surface" in block else None
  condition = {
    "pose": networks.embed_pose(weights, pose[None], None if looked_up is None else to_unit(looked_up)[None])[0]
  }
  shown = () if networks.refiner is None else (pose, looked_up)
  return jnp.broadcast_to(noise, (len(pose), *noise.shape)), condition, shown


@functools.partial(jax.jit, static_argnums=0)
def _head_block(
  networks: Networks, weights: PyTree, pose_channels: PoseChannels, noise: Float[Array, "h w C"], block: PyTree
):
  noise, condition, shown = _body_block(networks, weights, pose_channels, noise, block)
  inpaint = networks.inpaint_condition(weights, to_signed(block["crop"]), block["keep"][..., 0] > 127)
  return noise, {**condition, "inpaint": inpaint}, shown


@functools.partial(jax.jit, static_argnums=0)
def _context(networks: Networks, weights: PyTree, picture: UInt8[Array, "H W 3"]) -> Float[Array, "N D"]:
  return networks.encode_reference(weights, picture[None])[0]


@functools.partial(jax.jit, static_argnums=0)
def _decode(
  networks: Networks, weights: PyTree, latents: Float[Array, "F h w C"], shown: PyTree
) -> tuple[UInt8[Array, "F H W 3"], Bool[Array, "F"]]:
  """Pictures of latents, and which of them are finite; `shown` is what the refiner sees, () where there is none."""
  if networks.refiner is None:
    pictures = networks.decode(weights, latents)
  else:
    pose, looked_up = shown
    pictures = networks.paint(weights, latents, pose, None if looked_up is None else to_unit(looked_up))
  return to_bytes(pictures, latents)


@jax.jit
def _sample_clip(sampler: Sampler, denoise, plan: WindowPlan, *inputs: PyTree) -> Float[Array, "T h w C"]:
  return sampler.clip(denoise, *inputs, plan=plan)


@dataclasses.dataclass(frozen=True)
class _Denoise:
  """The networks' denoiser; equal ones share compiled programs, which functions made on the spot would not."""

  networks: Networks
  conditioning_scale: float

  def __call__(self, weights: PyTree, *inputs: Any) -> Array:
    return self.networks.denoise(weights, *inputs, conditioning_scale=self.conditioning_scale)


class _Painter:
  """One part that paints one video: from what is known of each frame to its picture."""

  def __init__(
    self,
    part: Part,
    mesh: Any,
    size: int,
    key: Key[Array, ""],
    reference: Reference | None = None,
  ):
    self.part, self.networks, self.sampler = part, part.networks, part.sampler(mesh)
    self.weights, self.pose_channels = part.placed_weights(mesh), placed_pose_channels(part, reference, mesh)
    self.denoise = jax.tree_util.Partial(_Denoise(part.networks, part.sample.conditioning_scale), self.weights)
    # All frames start from the same noise, as in the reference: what does not move stays the same.
    side = size // self.networks.model.stride
    # Programs of several devices must not be started by two threads, each in its own order.
    self.ahead = in_thread if mesh is None else one_late
    self.noise = self.sampler.replicate(jax.random.normal(key, (side, side, self.networks.model.unet.out_channels)))

  def pictures(
    self, prepare: Prepare, items: Iterable[PyTree], reference: Picture, length: int | None, start: int
  ) -> Iterator[Picture]:
    """Frames from `start` on; `items` begin with the frame `_first_needed`."""
    with sharding.use_mesh(self.sampler.mesh):
      contexts = _context(self.networks, self.weights, self.sampler.replicate(reference)), self.weights["null_context"]
    layout = None if _in_memory(self.part) else self.sampler.layout
    size, offset = (_PIECE, 0) if layout is None else (layout.block, layout.offset)
    numbers = itertools.count(0 if layout is None else layout.first_block_needed(start))
    shown: dict[int, PyTree] = {}  # by number of the block, from when it comes in until its pictures are made

    def make_block(block: PyTree) -> tuple[Array, PyTree]:
      noise, condition, shown[next(numbers)] = prepare(
        self.networks, self.weights, self.pose_channels, self.noise, block
      )
      return noise, condition

    if layout is None:
      pieces, place = self._whole_clip(make_block, items, contexts), self._over_devices
    else:
      pieces = self.sampler.stream(self.denoise, items, make_block, *contexts, length=length, start=start)
      place = self.sampler.place_block
    for first, latents in self.ahead(pieces):
      block, row = divmod(first + offset, size)
      seen = shown.pop(block)
      if first + len(latents) > start:
        # Whole blocks, so that nothing compiles twice.
        padded = jnp.pad(latents, [(row, size - row - len(latents))] + [(0, 0)] * 3, mode="edge")
        with sharding.use_mesh(self.sampler.mesh):
          made, finite = map(np.asarray, _decode(self.networks, self.weights, *place((padded, seen))))
        wanted = slice(row + max(0, start - first), row + len(latents))
        require_finite(finite[wanted], f"the {self.part.config.part}'s frame", max(first, start))
        yield from made[wanted]

  def _over_devices(self, frames: PyTree) -> PyTree:
    """Frames of a whole clip, shared among the devices as far as they divide."""
    mesh = self.sampler.mesh
    if mesh is None:
      return frames
    divides = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(frames))
    return jax.device_put(frames, all_devices_sharding(mesh) if divides else sharding.replicated(mesh))

  def _whole_clip(
    self, make_block: Callable[[PyTree], tuple[Array, PyTree]], items: Iterable[PyTree], contexts: tuple[Array, Array]
  ) -> Iterator[tuple[int, Array]]:
    stacked = list(items)
    if not stacked:
      raise UserError("the motion has no frames: give one with at least one frame")
    stacked, rule = jax.tree.map(lambda *leaves: np.stack(leaves), *stacked), self.sampler.rule
    count = len(jax.tree.leaves(stacked)[0])
    rows = capacity(rule.count(count))
    frames = round_up(rows * rule.stride + rule.overlap, _PIECE)  # no fewer than so many windows could hold
    with sharding.use_mesh(self.sampler.mesh):
      blocks = []
      for i in range(0, frames, _PIECE):
        numbers = np.minimum(np.arange(i, i + _PIECE), count - 1)
        piece = jax.tree.map(lambda leaf, numbers=numbers: leaf[numbers], stacked)
        blocks.append(make_block(self._over_devices(piece)))
      inputs = self.sampler.replicate(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *blocks))
      plan = self.sampler.replicate(pad_windows(plan_windows(rule, count), rows))
      latents = _sample_clip(self.sampler.replicate(self.sampler), self.denoise, plan, *inputs, *contexts)
    yield from ((i, latents[i : min(i + _PIECE, count)]) for i in range(0, count, _PIECE))
