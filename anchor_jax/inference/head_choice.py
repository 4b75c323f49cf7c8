"""Whether a trained head makes this person's faces better: held-out frames decide, and `load` follows.

The body sees the person's film, the head a crop of the pose and a reference picture. So after a short training the
body's faces are often the better ones. WORKDIR/head/choice.json holds the comparison.
"""

import dataclasses
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.data.sources import split_records
from anchor_jax.data.textures import gather_person
from anchor_jax.files.fields import read_fields
from anchor_jax.files.outputs import new_file
from anchor_jax.inference.animate import animate_parts
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.part import Part
from anchor_jax.store.weights import parts_in, read_part
from anchor_jax.texture.channels import needs_texture

log = logging.getLogger(__name__)

CHOICE = "choice.json"  # in WORKDIR/head
_FRAMES = 8  # that are compared at most: a block of the sampler; neighboring frames look alike


@dataclasses.dataclass(frozen=True)
class HeadChoice:
  """The comparison of faces with and without the head.

  Attributes:
    body, head: PSNR in dB of the faces in held-out frames, as the body paints them and as the head repaints them.
    frames: number of these frames.
  """

  body: float
  head: float
  frames: int

  @property
  def helps(self) -> bool:
    """Whether to use the head."""
    return self.head > self.body

  def sentence(self) -> str:
    """What was found, for the user."""
    found = (
      f"faces in {self.frames} held-out frames: {self.body:.2f} dB from the body, {self.head:.2f} dB with the head"
    )
    return found + ("" if self.helps else "; the head is left out (generate --head uses it all the same)")


def read_head_choice(folder: str | Path) -> HeadChoice | None:
  """The comparison in a workdir; None if there is none, or if it is damaged: then the head is used."""
  path = Path(folder) / "head" / CHOICE
  if not path.is_file():
    return None
  try:
    return read_fields(path, HeadChoice, remedy="train the head again")
  except UserError as error:
    log.warning("%s, so the head is used", error)
    return None


def choose_head(workdir: str | Path) -> HeadChoice | None:
  """Compares both parts of a workdir on frames that neither was trained on; stores and returns the result.

  Returns None, and removes an older result, if there is nothing to compare: a part is missing, nothing was held out of
  both trainings, the prepared folder is gone or has several people, or no held-out frame has a face.

  Args:
    workdir: of one person.
  """
  path = Path(workdir) / "head" / CHOICE
  choice = _compare(Path(workdir))
  if choice is None:
    path.unlink(missing_ok=True)
    return None
  with new_file(path) as partial:
    partial.write_text(json.dumps(dataclasses.asdict(choice), indent=2) + "\n")
  return choice


def _compare(workdir: Path) -> HeadChoice | None:
  if not {"body", "head"} <= set(parts_in(workdir)):
    return None
  body, head = (read_part(workdir, part) for part in ("body", "head"))
  try:
    source = open_prepared(head.config.data.path)
  except UserError:
    return None
  records = _held_out(source, body, head)
  if not len(records) or source.size != body.frame_size or len(source.meta["people"]) != 1:
    return None
  if needs_texture(body.config.data.pose_channels):  # without the frames that are to be painted, as in training
    gathered, numbers = gather_person(source)
    known = gathered.texture(int(gathered.blocks.of_frame[np.searchsorted(numbers, records[-1])]))
    body = dataclasses.replace(body, texture=known)
  errors = np.zeros((0, 2))
  pairs = animate_parts(body, head, _motion_of(source, records))
  for record, (repainted, painted) in zip(records, itertools.islice(pairs, len(records)), strict=True):
    truth = source.read(int(record), ("frame", "face_mask"))
    face = truth["face_mask"][..., 0] > 127
    if face.any():
      squares = [np.square(one[face].astype(np.float64) - truth["frame"][face]).mean() for one in (painted, repainted)]
      errors = np.concatenate([errors, [squares]])
  if not len(errors):
    return None
  painted, repainted = (10 * np.log10(255**2 / np.maximum(errors.mean(axis=0), 1e-3))).round(3).tolist()
  return HeadChoice(painted, repainted, len(errors))


def _held_out(source: PreparedSource, body: Part, head: Part) -> Int[NdArray, " N"]:
  """The last frames of the film that neither part was trained on, if they have faces."""
  if body.config.data.path != head.config.data.path:
    return np.zeros(0, int)
  faces = np.flatnonzero(source.has_landmarks)
  unseen = split_records(len(source), body.config.data.validation)[1]
  unseen = np.intersect1d(unseen, faces[split_records(len(faces), head.config.data.validation)[1]])[-_FRAMES:]
  ends = np.flatnonzero((np.diff(unseen) != 1) | (np.diff(source.videos[unseen]) != 0))  # one clip, no gaps
  return unseen[ends[-1] + 1 :] if len(ends) else unseen


def _motion_of(source: PreparedSource, records: Int[NdArray, " N"]) -> Motion:
  """The motion of successive records."""

  def frames(first: int) -> Iterator[MotionFrame]:
    for number in records[first:].tolist():
      record = source.read(number, ("pose", "face_mask", "surface", "landmarks"))
      surface = record["surface"] if source.has_surface[number] else None
      yield MotionFrame(record["pose"], record["face_mask"], record["landmarks"], surface)

  return Motion(source.fps, source.size, len(records), frames)
