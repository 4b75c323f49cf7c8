"""From motion to pictures: the body paints frames in overlapping windows, then the head repaints each face.

Everything is a generator that takes motion frames and yields pictures, so memory does not grow with the length. Face
crops and masks come from the motion; no true frame is read.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body import face_crop
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Array, Bool, Float, Key, NdArray, PyTree, UInt8
from anchor_jax.diffusion.distributed import all_devices_sharding, round_up
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.stream import FinishedBlock, PreparedBlock, StreamFrame
from anchor_jax.diffusion.windows import WindowPlan, capacity, pad_windows, plan_clip
from anchor_jax.inference.paste import paste_faces
from anchor_jax.inference.prefetch import dispatch_ahead, in_thread
from anchor_jax.inference.reference import Reference, fitted, fitted_reference
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import require_finite, to_bytes, to_signed
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.part import Part
from anchor_jax.texture.background.camera_path import STILL
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.channels import PoseChannels, make_pose_channels, needs_texture, to_unit
from anchor_jax.texture.look_up.plain import plate_size
from anchor_jax.texture.stored import Texture

log = logging.getLogger(__name__)

Picture = UInt8[NdArray, "H W 3"]
_CHUNK = 16  # frames per call of the autoencoder or the pose stem when a full clip is in memory


@runtime_checkable
class Prepare(Protocol):
  """A jitted function that prepares a block of frames for the sampler."""

  def __call__(
    self,
    networks: Networks,
    weights: PyTree,
    pose_channels: PoseChannels,
    noise: Float[Array, "h w C"],
    block: PyTree,
    /,
  ) -> PreparedBlock:
    """Returns the block; it carries what the refiner takes besides decoded pictures.

    Args:
      networks: of the part; static.
      weights: of the part.
      pose_channels: the look-up of pose channels.
      noise: the starting latent of every frame.
      block: stacked inputs of the block's frames, such as pose renders and surface maps.
    """
    ...


def animate_parts(
  body: Part,
  head: Part | None,
  motion: Motion,
  reference: Reference | None = None,
  seed: int = 0,
  start: int = 0,
  mesh: Any = None,
) -> Iterator[tuple[Picture, Picture]]:
  """Yields (frame with the face repainted by the head, frame as the body painted it), starting at frame `start`.

  Args:
    body, head: parts of one person; without a head, both frames are the body's.
    motion: the motion to follow.
    reference: replaces the reference saved in training.
    seed: of the noise.
    start: number of the first frame to yield; frames equal those of a run from 0, bit for bit.
    mesh: of `sharding.sampling_mesh`, to shard windows over devices; None uses one device.
  """
  body_key, head_key = jax.random.split(jax.random.key(seed))
  # Both streams start at a block boundary of a run from 0; the body's frames are the head's input.
  head_start = start if head is None else _first_needed(head, mesh, start)
  begin = _first_needed(body, mesh, head_start)
  painter = _Painter(body, mesh, motion.size, body_key, reference)
  head_painter = None if head is None else _Painter(head, mesh, head.frame_size, head_key, reference)
  unknown = any(each is not None and each.pose_channels.nothing_known for each in (painter, head_painter))
  if unknown and (reference is None or reference.gather is None):
    log.info("the person's texture is unknown: give a prepared folder of the person as appearance to show it")
  bodies = _paint_body(painter, motion.frames(begin), motion, reference, head_start)
  if head_painter is None:
    yield from ((frame, frame) for frame, _ in bodies)
    return
  yield from _paint_heads(head_painter, enumerate(bodies, start=head_start), motion, reference, start)


def _texture_of(part: Part, reference: Reference | None) -> Texture | None:
  """The texture that a part looks up: of the film of a reference, else its own; None if it needs none."""
  if not needs_texture(part.config.data.pose_channels):
    return None
  return part.texture if reference is None or reference.gather is None else reference.texture


def placed_pose_channels(part: Part, reference: Reference | None, mesh: Any = None) -> PoseChannels:
  """The look-up of a part's pose channels, replicated on a mesh: from the film of a reference, else the part's own."""
  kind = part.config.data.pose_channels
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
) -> Iterator[tuple[Picture, MotionFrame]]:
  """The body's frames, starting at `start`, each with its motion frame."""
  own, shape = painter.part.reference_image, motion.size
  if own is not None and not (shape.is_square and own.shape[0] == own.shape[1]):
    shape = FrameSize(own.shape[1], own.shape[0])  # a person's own frames, whatever the shape of the video
  picture = fitted_reference(reference, own, shape)
  items = (StreamFrame({"pose": frame.pose}, frame) for frame in frames)
  if painter.pose_channels.kind:
    surface = _surfaces(painter, motion)
    plate = _plates(painter, motion)
    items = (StreamFrame({"pose": frame.pose, "surface": surface(frame), **plate(frame)}, frame) for frame in frames)
  return painter.pictures(_body_block, items, picture, motion.length, start)


def _surfaces(painter: "_Painter", motion: Motion) -> Callable[[MotionFrame], UInt8[NdArray, "H W 3"]]:
  """Returns a function from a motion frame to its surface map; all zeros if the person's texture is unknown.

  Raises:
    UserError: the texture and the motion differ in size; or, from the function, a frame has no map.
  """
  pose_channels, size = painter.pose_channels, motion.size
  known = size if pose_channels.tables is None else plate_size(pose_channels.tables)
  if known != size:
    raise UserError(
      f"the appearance has {known} pixels and the motion {size}: read the motion with size={known}, or prepare the"
      f" appearance's film again with --size={size}"
    )
  unseen = np.zeros((*size.shape, 3), np.uint8)

  def surface(frame: MotionFrame) -> UInt8[NdArray, "H W 3"]:
    if pose_channels.nothing_known:
      return unseen
    if frame.surface is None:
      raise UserError("the motion has no surface maps, which this person needs: prepare its video again")
    return frame.surface

  return surface


def _plates(painter: "_Painter", motion: Motion) -> Callable[[MotionFrame], dict[str, UInt8[NdArray, "H W 4"]]]:
  """Returns a function from a motion frame to the background plate that its camera shows; {} for a still camera."""
  texture = painter.texture
  if texture is None or not motion.moving:
    return lambda frame: {}
  shown = ShownPlate(texture)
  return lambda frame: {"plate": shown.through(np.array(STILL) if frame.camera is None else frame.camera)}


def _paint_heads(
  painter: "_Painter",
  pairs: Iterable[tuple[int, tuple[Picture, MotionFrame]]],
  motion: Motion,
  reference: Reference | None,
  start: int,
) -> Iterator[tuple[Picture, Picture]]:
  """Repaints faces: crops by the landmarks, inpaints, blends back; `pairs` are (number, (frame, motion frame))."""
  size, picture = painter.part.frame_size.width, painter.part.reference_image
  if reference is not None and reference.face is not None:
    picture = reference.face
  elif reference is not None:
    log.info("the face's position in the given appearance is unknown: the head uses the reference from training")
  if picture is None:
    raise UserError("the head has no reference image: give a prepared folder as appearance, or turn the head off")
  surface = _surfaces(painter, motion) if painter.pose_channels.kind else None
  plate = _plates(painter, motion)

  def crops():
    for number, (frame, motion_frame) in pairs:
      to_crop = face_crop.face_transform(motion_frame.landmarks, size)
      if not np.isfinite(to_crop).all():
        raise UserError(f"frame {number} of the motion has no face landmarks: prepare its video again")
      keep = face_crop.keep_mask(motion_frame.face_mask, to_crop, size)
      crop = face_crop.crop_image(frame, to_crop, size, extend=True)
      item = {"pose": face_crop.crop_image(motion_frame.pose, to_crop, size), "crop": crop, "keep": keep}
      if surface is not None:
        item |= {
          "surface": surface(motion_frame),
          "places": face_crop.crop_places(to_crop, size, motion.size.shape),
          **plate(motion_frame),
        }
      yield StreamFrame(item, (frame, to_crop, keep))

  repainted = painter.pictures(_head_block, crops(), fitted(picture, painter.part.frame_size), motion.length, start)
  # On a CPU, OpenCV frame by frame is faster than a JAX batch.
  yield from _pasted(repainted, 1 if sharding.platform() == "cpu" else _CHUNK)


def _pasted(repainted: Iterable[tuple[Picture, tuple]], batch: int) -> Iterator[tuple[Picture, Picture]]:
  """Frames with and without their repainted faces, from (repainted face, (frame, transform, keep mask))."""
  faces = iter(repainted)
  while chunk := list(itertools.islice(faces, batch)):
    if batch == 1:
      ((face, (frame, to_crop, keep)),) = chunk
      yield face_crop.paste_face(frame, face, to_crop, keep), frame
    else:
      rows = [
        chunk[min(row, len(chunk) - 1)] for row in range(batch)
      ]  # padded with the last row: one shape, one compile
      stacked = map(np.stack, zip(*((frame, face, to_crop, keep) for face, (frame, to_crop, keep) in rows)))
      yield from zip(np.asarray(paste_faces(*stacked)), [frame for _, (frame, *_) in chunk])


@functools.partial(jax.jit, static_argnums=0)
def _body_block(
  networks: Networks, weights: PyTree, pose_channels: PoseChannels, noise: Float[Array, "h w C"], block: PyTree
) -> PreparedBlock:
  pose = block["pose"]
  looked_up = None
  if "surface" in block:
    looked_up = pose_channels(block["surface"], block.get("places"), block.get("plate"))
  features = networks.embed_pose(weights, pose[None], None if looked_up is None else to_unit(looked_up)[None])[0]
  for_refiner = () if networks.refiner is None else (pose, looked_up)
  return PreparedBlock(jnp.broadcast_to(noise, (len(pose), *noise.shape)), FrameInputs(features), for_refiner)


@functools.partial(jax.jit, static_argnums=0)
def _head_block(
  networks: Networks, weights: PyTree, pose_channels: PoseChannels, noise: Float[Array, "h w C"], block: PyTree
) -> PreparedBlock:
  prepared = _body_block(networks, weights, pose_channels, noise, block)
  inpainting = networks.inpainting_channels(weights, to_signed(block["crop"]), block["keep"][..., 0] > 127)
  frame_inputs = dataclasses.replace(prepared.frame_inputs, inpainting=inpainting)
  return dataclasses.replace(prepared, frame_inputs=frame_inputs)


@functools.partial(jax.jit, static_argnums=0)
def _context(networks: Networks, weights: PyTree, picture: UInt8[Array, "H W 3"]) -> Float[Array, "N D"]:
  return networks.encode_reference(weights, picture[None])[0]


@functools.partial(jax.jit, static_argnums=0)
def _decode(
  networks: Networks, weights: PyTree, latents: Float[Array, "F h w C"], for_refiner: PyTree
) -> tuple[UInt8[Array, "F H W 3"], Bool[Array, "F"]]:
  """Pictures of latents, and which of them are finite; `for_refiner` is () without a refiner."""
  if networks.refiner is None:
    pictures = networks.decode(weights, latents)
  else:
    pose, looked_up = for_refiner
    pictures = networks.paint(weights, latents, pose, None if looked_up is None else to_unit(looked_up))
  return to_bytes(pictures, latents)


@jax.jit
def _sample_clip(sampler: Sampler, denoise, plan: WindowPlan, *inputs: PyTree) -> Float[Array, "T h w C"]:
  return sampler.clip(denoise, *inputs, plan=plan)


@dataclasses.dataclass(frozen=True)
class _Denoise:
  """The networks' denoiser. Equal instances share compiled programs, which closures would not."""

  networks: Networks
  conditioning_scale: float

  def __call__(self, weights: PyTree, *inputs: Any) -> Array:
    return self.networks.denoise(weights, *inputs, conditioning_scale=self.conditioning_scale)


class _Painter:
  """Paints one video with one part: from the items of each frame to its picture."""

  def __init__(
    self,
    part: Part,
    mesh: Any,
    size: FrameSize,
    key: Key[Array, ""],
    reference: Reference | None = None,
  ):
    self.part, self.networks, self.sampler = part, part.networks, part.sampler(mesh)
    self.weights, self.pose_channels = part.placed_weights(mesh), placed_pose_channels(part, reference, mesh)
    self.texture = _texture_of(part, reference)
    self.denoise = jax.tree_util.Partial(_Denoise(part.networks, part.sample.conditioning_scale), self.weights)
    # All frames start from the same noise, as in the reference implementation, so that static content stays static.
    latent = *(side // self.networks.model.stride for side in size.shape), self.networks.model.unet.out_channels
    # Two threads must not launch multi-device programs in different orders.
    self.ahead = in_thread if mesh is None else dispatch_ahead
    self.noise = self.sampler.replicate(jax.random.normal(key, latent))

  def pictures(
    self, prepare: Prepare, frames: Iterable[StreamFrame], reference: Picture, length: int | None, start: int
  ) -> Iterator[tuple[Picture, Any]]:
    """Frames starting at `start`, each with its companion; `frames` starts with the frame `_first_needed`."""
    with sharding.use_mesh(self.sampler.mesh):
      contexts = _context(self.networks, self.weights, self.sampler.replicate(reference)), self.weights["null_context"]
    prepare_block = functools.partial(prepare, self.networks, self.weights, self.pose_channels, self.noise)
    if _in_memory(self.part):
      blocks, place = self._full_clip(prepare_block, frames, contexts), self._over_devices
    else:
      blocks = self.sampler.stream(self.denoise, frames, prepare_block, *contexts, length=length, start=start)
      place = self.sampler.place_block
    for block in self.ahead(blocks):
      if (skipped := max(0, start - block.first)) < len(block):
        # All rows of the block: one shape, one compile.
        with sharding.use_mesh(self.sampler.mesh):
          inputs = place((block.latents, block.carried))
          decoded, finite = map(np.asarray, _decode(self.networks, self.weights, *inputs))
        rows = slice(block.rows.start + skipped, block.rows.stop)
        require_finite(finite[rows], f"the {self.part.config.part}'s frame", block.first + skipped)
        yield from zip(decoded[rows], block.companions[skipped:])

  def _over_devices(self, frames: PyTree) -> PyTree:
    """Frames of a full clip, sharded over the devices if they divide evenly, else replicated."""
    mesh = self.sampler.mesh
    if mesh is None:
      return frames
    divides = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(frames))
    return jax.device_put(frames, all_devices_sharding(mesh) if divides else sharding.replicated(mesh))

  def _full_clip(
    self,
    prepare_block: Callable[[PyTree], PreparedBlock],
    frames: Iterable[StreamFrame],
    contexts: tuple[Array, Array],
  ) -> Iterator[FinishedBlock]:
    inputs, companions = [], []
    for frame in frames:
      inputs.append(frame.inputs)
      companions.append(frame.companion)
    if not inputs:
      raise UserError("the motion has no frames: give one with at least one frame")
    count, rule = len(inputs), self.sampler.rule
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
    rows = capacity(rule.count(count))
    padded = round_up(rows * rule.stride + rule.overlap, _CHUNK)  # at least as many as the windows cover
    with sharding.use_mesh(self.sampler.mesh):
      blocks = []
      for i in range(0, padded, _CHUNK):
        numbers = np.minimum(np.arange(i, i + _CHUNK), count - 1)
        chunk = jax.tree.map(lambda leaf, numbers=numbers: leaf[numbers], stacked)
        blocks.append(prepare_block(self._over_devices(chunk)))
      of_clip = [(block.noise, block.frame_inputs) for block in blocks]
      noise, frame_inputs = self.sampler.replicate(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_clip))
      plan = self.sampler.replicate(pad_windows(plan_clip(rule, count), rows))
      sampler = self.sampler.replicate(self.sampler)
      latents = _sample_clip(sampler, self.denoise, plan, noise, frame_inputs, *contexts)
    for block, i in zip(blocks, range(0, count, _CHUNK)):
      stop = min(i + _CHUNK, count)
      in_clip = slice(0, stop - i)
      yield FinishedBlock(i, in_clip, latents[i : i + _CHUNK], block.carried, companions[i:stop])
