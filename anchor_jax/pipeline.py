"""From motion to pictures: the body pass over overlapping windows, then the head pass that repaints each face.

Nothing here sees the truth: face crops and masks come from the motion's pose side.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from anchor_jax.config import SampleConfig
from anchor_jax.data import face
from anchor_jax.data.dataset import open_prepared
from anchor_jax.diffusion.sampler import sample_clip
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import plan_windows
from anchor_jax.errors import UserError
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.shapes import Array, Float, Key, NdArray, PyTree, UInt8
from anchor_jax.training.weights import read_part

_CHUNK = 16  # frames that go through the autoencoder or the pose stem in one call


@dataclasses.dataclass(frozen=True)
class Motion:
  """What drives a video.

  Attributes:
    pose: pose renders.
    face_mask: 255 where the face is to be repainted, from the pose side.
    landmarks: five points of each face in pixels; NaN where missing.
    fps: frames per second.
  """

  pose: UInt8[NdArray, "T H W 3"]
  face_mask: UInt8[NdArray, "T H W 1"]
  landmarks: Float[NdArray, "T 5 2"]
  fps: float

  def __len__(self) -> int:
    return len(self.pose)


@dataclasses.dataclass(frozen=True)
class Part:
  """A trained part of a person.

  Attributes:
    networks, weights: what denoises.
    sample: how the part was configured to sample.
    appearance: a reference picture kept while training.
  """

  networks: Networks
  weights: PyTree
  sample: SampleConfig
  appearance: UInt8[NdArray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Person:
  """A trained person: the body, and the head unless it was not trained."""

  body: Part
  head: Part | None


def load_person(workdir: Path) -> Person:
  """Reads a workdir's body and, if it is there, its head. Raises UserError where there is no trained body."""
  body = load_part(workdir, "body")
  has_head = (workdir / "head" / "config.json").exists()
  return Person(body, load_part(workdir, "head") if has_head else None)


def load_part(workdir: Path, part: str) -> Part:
  """Reads one trained part of a workdir."""
  config, networks, weights, _ = read_part(workdir, part)
  place = workdir / part / "appearance.png"
  if not place.exists():
    raise UserError(f"{place} is missing: train this part again")
  return Part(networks, jax.device_put(weights), config.sample, read_image(place))


def read_motion(folder: Path, frames: int | None = None) -> Motion:
  """The pose side of the first video of a prepared folder, or of its first `frames` frames."""
  source = open_prepared(folder)
  count = int(np.sum(source.videos == 0))
  count = count if frames is None else min(count, frames)
  records = [source.read(i, ("pose", "face_mask", "landmarks")) for i in range(count)]
  stacked = {name: np.stack([record[name] for record in records]) for name in records[0]}
  return Motion(**stacked, fps=float(source.fps))


def read_image(path: Path) -> UInt8[NdArray, "H W 3"]:
  """An RGB picture. Raises UserError where there is none."""
  image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
  if image is None:
    raise UserError(f"{path} is no picture that can be read: give a PNG or JPEG file")
  return np.ascontiguousarray(image[..., ::-1])


def animate(
  person: Person, motion: Motion, appearance: UInt8[NdArray, "H W 3"] | None = None, seed: int = 0
) -> tuple[UInt8[NdArray, "T H W 3"], UInt8[NdArray, "T H W 3"]]:
  """The person in motion: (frames with the head repainted, frames as the body model left them)."""
  body_key, head_key = jax.random.split(jax.random.key(seed))
  body = paint_body(person.body, motion, appearance, body_key)
  return (body if person.head is None else paint_heads(person.head, body, motion, head_key)), body


def paint_body(
  part: Part, motion: Motion, appearance: UInt8[NdArray, "H W 3"] | None, key: Key[Array, ""]
) -> UInt8[NdArray, "T H W 3"]:
  """Batch-overlapped temporal denoising of the whole clip."""
  networks, weights = part.networks, part.weights
  side = motion.pose.shape[1]
  if appearance is None:
    appearance = part.appearance
  appearance = cv2.resize(appearance, (side, side), interpolation=cv2.INTER_AREA)
  embed = jax.jit(lambda weights, pose: networks.embed_pose(weights, pose[None])[0])
  condition = {"pose": _in_chunks(lambda pose: embed(weights, pose), (motion.pose,), "pose features")}
  latents = _sample(part, condition, appearance, side // networks.model.vae.stride, key, "body")
  return _decode(part, latents, "decode")


def paint_heads(
  part: Part, frames: UInt8[NdArray, "T H W 3"], motion: Motion, key: Key[Array, ""]
) -> UInt8[NdArray, "T H W 3"]:
  """Repaints the face of each frame: crop by the pose's landmarks, inpaint, blend back."""
  networks, weights = part.networks, part.weights
  size = part.appearance.shape[0]
  to_crop = [face.face_transform(points, size) for points in face.fill_missing(motion.landmarks)]
  each = lambda arrays: zip(arrays, to_crop, strict=True)
  crops = np.stack([face.crop_image(frame, transform, size, extend=True) for frame, transform in each(frames)])
  poses = np.stack([face.crop_image(pose, transform, size) for pose, transform in each(motion.pose)])
  keeps = np.stack([face.keep_mask(mask, transform, size) for mask, transform in each(motion.face_mask)])

  @jax.jit
  def conditions(weights, pose, crop, keep):
    inpaint = networks.inpainting(weights, to_signed(crop), keep[..., 0] > 127)
    return {"pose": networks.embed_pose(weights, pose[None])[0], "inpaint": inpaint}

  condition = _in_chunks(lambda *chunk: conditions(weights, *chunk), (poses, crops, keeps), "face crops")
  latents = _sample(part, condition, part.appearance, size // networks.model.vae.stride, key, "head")
  heads = _decode(part, latents, "decode faces")
  return np.stack(
    [
      face.paste_face(frame, head, transform, keep)
      for frame, head, transform, keep in zip(frames, heads, to_crop, keeps, strict=True)
    ]
  )


def _sample(
  part: Part, condition: PyTree, appearance: UInt8[NdArray, "H W 3"], side: int, key: Key[Array, ""], name: str
) -> Float[Array, "T h w C"]:
  networks, sample = part.networks, part.sample
  solver = make_solver(sample.solver, networks.model.schedule, sample.steps)
  count = jax.tree.leaves(condition)[0].shape[0]
  plan = plan_windows(count, sample.window, sample.overlap)
  # All frames start from the same noise, as in the reference: what is the same stays the same from frame to frame.
  noise = jax.random.normal(key, (1, side, side, networks.model.unet.out_channels))
  noise = jnp.broadcast_to(noise, (count, *noise.shape[1:]))
  with tqdm(total=sample.steps, desc=f"{name}: {count} frames in {plan.count} windows", unit="step") as bar:

    def run(weights, condition, appearance, noise):
      def denoise(*inputs):
        return networks.denoise(weights, *inputs, conditioning_scale=sample.conditioning_scale)

      context = networks.appearance(weights, appearance[None])[0]
      null = weights["null_context"]
      return sample_clip(
        denoise, solver, plan, noise, context, null, condition, sample.guidance, sample.windows_per_batch,
        on_step=lambda: bar.update(),
      )  # fmt: skip

    return jax.block_until_ready(jax.jit(run)(part.weights, condition, appearance, noise))


def _decode(part: Part, latents: Float[Array, "T h w C"], name: str) -> UInt8[NdArray, "T H W 3"]:
  decode = jax.jit(lambda weights, z: jnp.round(part.networks.decode(weights, z) * 255).astype(jnp.uint8))
  return np.asarray(_in_chunks(lambda z: decode(part.weights, z), (latents,), name))


def _in_chunks(function: Callable, arrays: tuple, name: str) -> PyTree:
  """Calls function over the leading axis, `_CHUNK` at a time, the last chunk padded so that nothing compiles twice."""
  count, outputs = len(arrays[0]), []
  for start in tqdm(range(0, count, _CHUNK), desc=name, unit="chunk", leave=False):
    chunk = [np.asarray(array[start : start + _CHUNK]) for array in arrays]
    missing = _CHUNK - len(chunk[0])
    outputs.append(function(*(np.pad(c, [(0, missing)] + [(0, 0)] * (c.ndim - 1), mode="edge") for c in chunk)))
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *outputs)
