"""A trained person, read from where training left her: the object that a program animates, saves and exports."""

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.config.run import check_seed
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.inference.animate import animate_parts, placed_pose_channels
from anchor_jax.inference.reference import Reference, read_reference, square
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.motion.frames import Motion
from anchor_jax.store.bundle import check_bundle_target, write_bundle
from anchor_jax.store.light import read_light_decoder
from anchor_jax.store.part import Part
from anchor_jax.store.saving import write_person
from anchor_jax.store.weights import CheckpointChoice, parts_in, read_part

__all__ = ["Part", "Person", "Reference", "load", "read_reference"]


@dataclasses.dataclass(frozen=True)
class Person:
  """A trained person: the body, and the head where there is one."""

  body: Part
  head: Part | None

  @property
  def size(self) -> int:
    """Side in pixels of the pictures that the body was trained with."""
    return self.body.size

  @property
  def parts(self) -> dict[str, Part]:
    """The parts that there are, by name: "body", and perhaps "head"."""
    return {"body": self.body} if self.head is None else {"body": self.body, "head": self.head}

  @property
  def measures(self) -> BodyMeasures | None:
    """Measures of her body, for `read_motion` to fit another person's motion to it.

    They come from the folder she was trained on, with texture and room (config.data.appearance); None where they are
    not known.
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
    """The person in motion, frame by frame.

    Args:
      motion: what the person does.
      appearance: the reference in place of the one kept from training: a picture of any size, of which the central
        square counts, a prepared folder, or what `read_reference` returns of either. The head takes the face crop of a
        `Reference`; where the position of the face is not known, it keeps its own reference. Where the person was
        trained with config.data.appearance, texture and room are those of the prepared folder; with a picture they stay
        those of the training, and are left out where there are none, as for "studio".
      seed: of the noise, 0 to 2**63 - 1.
      start: first frame wanted; it and all after it are those of a run from 0, bit for bit.
      mesh: of `parallel.sampling_mesh`, the devices that share the windows; None is one device.
      with_body: also yield each frame as it was before the head repainted the face.

    Returns:
      An iterator over frames, uint8 [H W 3], or over pairs of such.

    Raises:
      UserError: the seed is out of range or the appearance can't be read, here; what is wrong with the motion, while
        frames are made.
    """
    check_seed(seed)
    if not isinstance(start, numbers.Integral) or start < 0:
      raise UserError(f"start={one_line(start, 40)}: the first frame wanted is a whole number, 0 or more")
    pairs = animate_parts(self.body, self.head, motion, _reference(appearance), seed, start, mesh)
    return pairs if with_body else (frame for frame, _ in pairs)

  def with_sampling(self, part: str = "body", **changes: Any) -> "Person":
    """The person with other sampling settings of a part (fields of `SampleConfig`).

    Raises:
      UserError: no such part, or a setting is unknown or out of range.
    """
    if part not in self.parts:
      raise UserError(f'this person has no part "{part}": use {" or ".join(self.parts)}')
    return dataclasses.replace(self, **{part: self.parts[part].with_sampling(**changes)})

  def with_decoder(self, decoder: str | Path) -> "Person":
    """The person with pictures decoded in another way.

    Args:
      decoder: "exact" is the autoencoder, as without this; "light" the small decoder that comes with the package, which
        takes a tenth of the time and loses a little; otherwise a folder that `python -m anchor_jax.distil` wrote.

    Raises:
      UserError: it can't be read, or it was made for another autoencoder than hers.
    """
    if str(decoder) == "exact":
      return self
    light = read_light_decoder(decoder)
    return dataclasses.replace(self, **{name: part.with_light_decoder(light) for name, part in self.parts.items()})

  def with_attended_frames(self, count: int) -> "Person":
    """The person whose body's frames attend to `count` frames of their window instead of all, which is faster.

    Args:
      count: itself, a neighbour, and others spread over the window; 0 is all of them, as trained.

    Raises:
      UserError: the count is negative.
    """
    return dataclasses.replace(self, body=self.body.with_attended_frames(count))

  def save(self, folder: str | Path) -> None:
    """Writes the person as a folder of diffusers models, which `load` reads back bit for bit.

    Args:
      folder: made, or replaced where it holds models already.

    Raises:
      UserError: the folder holds something else, or can't be written.
    """
    write_person(Path(folder), self.parts)

  def export(
    self,
    folder: str | Path,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    appearance: UInt8[NdArray, "H W 3"] | Reference | str | Path | None = None,
  ) -> list[str]:
    """Writes an inference bundle, which runs without this package; returns the names of the parts in it.

    Args:
      folder: made, or replaced if it holds a bundle already.
      platforms: some of `store.bundle.PLATFORMS`; every program runs on all of them.
      appearance: the reference in place of the one kept from training, as `animate` takes it.

    Raises:
      UserError: an unknown platform, a folder that holds something else or can't be written, or an appearance that
        can't be read or has other pictures than the body.
    """
    check_bundle_target(Path(folder), platforms)  # before a film is read, which takes longer
    reference = _reference(appearance)
    given = {"body": None, "head": None} if reference is None else {"body": reference.picture, "head": reference.face}
    parts, pose_channels = dict(self.parts), None
    for name, picture in given.items():
      if name in parts and picture is not None:
        parts[name] = dataclasses.replace(parts[name], reference_image=square(picture, parts[name].size))
    if self.body.config.data.appearance:
      pose_channels = placed_pose_channels(self.body, reference)
      if pose_channels.tables is not None and pose_channels.tables.plate.shape[0] != self.size:
        raise UserError(
          f"the appearance has {pose_channels.tables.plate.shape[0]} pixels and the body {self.size}: prepare its film"
          f" again with --size={self.size}"
        )
    write_bundle(Path(folder), parts, platforms, pose_channels)
    return list(self.parts)


def _reference(appearance: Any) -> Reference | None:
  """What `animate` and `export` are given, read where it is a path."""
  if isinstance(appearance, (str, Path)):
    return read_reference(appearance)
  return appearance if appearance is None or isinstance(appearance, Reference) else Reference(appearance)


def load(path: str | Path, *, step: str | int = "newest", base: str = "", head: bool = True) -> Person:
  """Reads a trained person; weights stay on the host until she is animated.

  Args:
    path: a workdir of training, a folder of adapters, a folder of diffusers models, or "studio", the shipped weights.
      The last two know no person: `animate` then needs an appearance.
    step: which checkpoint: "newest", "best" (lowest validation loss) or a number.
    base: the weights that adapters change, where they aren't those of the training.
    head: also read the head, if there is one.

  Raises:
    UserError: there is no trained body, or something can't be read.
  """
  choice = CheckpointChoice(step=str(step), base=base)
  has_head = head and "head" in parts_in(path)
  return Person(read_part(path, "body", choice), read_part(path, "head", choice) if has_head else None)
