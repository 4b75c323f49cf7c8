"""A trained person: the object that programs load, animate, save and export."""

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.config.run import check_seed
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.animate import animate_parts, placed_pose_channels
from anchor_jax.inference.head_choice import read_head_choice
from anchor_jax.inference.reference import Reference, fitted, fitted_reference, read_reference
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.motion.frames import Motion
from anchor_jax.store.bundle import check_bundle_target, write_bundle
from anchor_jax.store.light import read_light_decoder
from anchor_jax.store.part import Part
from anchor_jax.store.saving import write_person
from anchor_jax.store.weights import CheckpointChoice, parts_in, read_part
from anchor_jax.texture.look_up.plain import plate_size

__all__ = ["Part", "Person", "Reference", "load", "read_reference"]


@dataclasses.dataclass(frozen=True)
class Person:
  """A trained person: the body and, optionally, the head."""

  body: Part
  head: Part | None

  @property
  def size(self) -> int | FrameSize:
    """Size of the body's frames: the side of squares in pixels, or width and height."""
    return self.body.size

  @property
  def parts(self) -> dict[str, Part]:
    """The parts by name: "body" and, if present, "head"."""
    return {"body": self.body} if self.head is None else {"body": self.body, "head": self.head}

  @property
  def measures(self) -> BodyMeasures | None:
    """The person's body measures, with which `read_motion` retargets another person's motion.

    They come from the prepared folder of the training, with the texture (config.data.pose_channels); None if unknown.
    """
    return None if self.body.texture is None else self.body.texture.measures

  def animate(
    self,
    motion: Motion,
    appearance: UInt8[NdArray, "H W 3"] | Reference | str | Path | None = None,
    seed: int = 0,
    start: int = 0,
    mesh: Any = None,
    with_body: bool = False,
  ) -> Iterator[Any]:
    """Returns an iterator over the frames of the person following a motion.

    Args:
      motion: the motion to follow.
      appearance: replaces the reference saved in training: a picture of any size (its middle is used), a
        prepared folder, or a `Reference` from `read_reference`. The head uses the reference's face crop; if the face's
        position is unknown, it keeps its own reference. For a person trained with config.data.pose_channels, a prepared
        folder also replaces the texture; with a picture the texture from training stays, or is missing if there is
        none, as for "studio".
      seed: of the noise, 0 to 2**63 - 1.
      start: number of the first frame; frames equal those of a run from 0, bit for bit.
      mesh: from `sampling_mesh`, to shard windows over devices; None uses one device.
      with_body: yield pairs: the frame, and the frame before the head repainted the face.

    Returns:
      An iterator over frames, uint8 [H W 3], or over pairs of frames.

    Raises:
      UserError: the seed is out of range or the appearance can't be read. Problems with the motion are raised by the
        iterator.
    """
    check_seed(seed)
    if not isinstance(start, numbers.Integral) or start < 0:
      raise UserError(f"start={one_line(start, 40)}: give the number of the first frame, an integer from 0")
    pairs = animate_parts(self.body, self.head, motion, _reference(appearance), seed, start, mesh)
    return pairs if with_body else (frame for frame, _ in pairs)

  def with_sampling(self, part: str = "body", **changes: Any) -> "Person":
    """Returns the person with other sampling settings of a part (fields of `SampleConfig`).

    Raises:
      UserError: there is no such part, or a setting is unknown or out of range.
    """
    if part not in self.parts:
      raise UserError(f'this person has no part "{part}": use {" or ".join(self.parts)}')
    return dataclasses.replace(self, **{part: self.parts[part].with_sampling(**changes)})

  def with_decoder(self, decoder: str | Path) -> "Person":
    """Returns the person with another decoder.

    Args:
      decoder: "exact" is the autoencoder (the default); "light" is the package's light decoder, which takes a tenth of
        the time at a small loss of quality; otherwise a folder that `python -m anchor_jax.distil` wrote.

    Raises:
      UserError: it can't be read, or was trained for another autoencoder.
    """
    if str(decoder) == "exact":
      return self
    light = read_light_decoder(decoder)
    return dataclasses.replace(self, **{name: part.with_light_decoder(light) for name, part in self.parts.items()})

  def with_attended_frames(self, count: int) -> "Person":
    """Returns the person whose body attends to `count` frames per window instead of all, which is faster.

    Args:
      count: the frame itself, a neighbor, and others spread over the window; 0 is all of them, as trained.

    Raises:
      UserError: the count is negative.
    """
    return dataclasses.replace(self, body=self.body.with_attended_frames(count))

  def with_size(self, size: int | tuple[int, int] | FrameSize) -> "Person":
    """Returns the person with frames of another size: at the same scale, with more of the room around, or less.

    See `texture.background.reframe` for where the person stands. Read a motion with this person's size and measures.

    Args:
      size: the side of squares in pixels, or (width, height).

    Raises:
      UserError: frames can't have this size.
    """
    size = FrameSize.of(size).check()
    parts = {name: part.with_frame_size(size) for name, part in self.parts.items()}
    return dataclasses.replace(self, **parts)

  def save(self, folder: str | Path) -> None:
    """Saves the person as a folder of diffusers models, which `load` reads back bit for bit.

    Args:
      folder: created, or replaced if it holds models.

    Raises:
      UserError: the folder holds other files, or can't be written.
    """
    write_person(Path(folder), self.parts)

  def export(
    self,
    folder: str | Path,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    appearance: UInt8[NdArray, "H W 3"] | Reference | str | Path | None = None,
  ) -> list[str]:
    """Writes an inference bundle, which runs without this package; returns the names of its parts.

    Args:
      folder: created, or replaced if it holds a bundle.
      platforms: from `store.bundle.PLATFORMS`; every program runs on all of them.
      appearance: replaces the reference saved in training, as in `animate`.

    Raises:
      UserError: a platform is unknown, the folder holds other files or can't be written, or the appearance can't be
        read or differs in size from the body.
    """
    check_bundle_target(Path(folder), platforms)  # before a film is read, which takes longer
    reference = _reference(appearance)
    parts, pose_channels = dict(self.parts), None
    if reference is not None or self.body.reference_image is not None:
      parts["body"] = dataclasses.replace(
        self.body, reference_image=fitted_reference(reference, self.body.reference_image, self.body.frame_size)
      )
    if self.head is not None and reference is not None and reference.face is not None:
      parts["head"] = dataclasses.replace(self.head, reference_image=fitted(reference.face, self.head.frame_size))
    if self.body.config.data.pose_channels:
      pose_channels = placed_pose_channels(self.body, reference)
      if pose_channels.tables is not None and (known := plate_size(pose_channels.tables)) != self.body.frame_size:
        raise UserError(
          f"the appearance has {known} pixels and the body {self.size}: prepare its film again with --size={self.size}"
        )
    write_bundle(Path(folder), parts, platforms, pose_channels)
    return list(self.parts)


def _reference(appearance: Any) -> Reference | None:
  """The reference that `animate` and `export` were given, as a picture, a path or a `Reference`."""
  if isinstance(appearance, (str, Path)):
    return read_reference(appearance)
  return appearance if appearance is None or isinstance(appearance, Reference) else Reference(appearance)


def load(path: str | Path, *, step: str | int = "newest", base: str = "", head: bool | None = None) -> Person:
  """Returns a trained person; weights stay on the host until the person is animated.

  Args:
    path: a workdir of training, a folder of adapters, a folder of diffusers models, or "studio", the shipped weights.
      The last two hold no person: `animate` then needs an appearance.
    step: the checkpoint: "newest", "best" (lowest validation loss) or a step number.
    base: the base weights for adapters, if not those of the training.
    head: also load the head, if there is one. None leaves out a head that made faces worse in the frames that training
      held out (inference/head_choice.py).

  Raises:
    UserError: there is no trained body, or a file can't be read.
  """
  choice = CheckpointChoice(step=str(step), base=base)
  has_head = head is not False and "head" in parts_in(path)
  if has_head and head is None and (found := read_head_choice(path)) is not None:
    has_head = found.helps
  return Person(read_part(path, "body", choice), read_part(path, "head", choice) if has_head else None)
