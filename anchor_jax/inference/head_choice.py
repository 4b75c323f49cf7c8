"""Whether a trained head makes this person's faces better: held-out frames decide, and `load` follows.

The body sees the person's film, the head a crop of the pose and a reference picture. So after a short training the
body's faces are often the better ones. WORKDIR/head/choice.json holds the comparison.
"""

import dataclasses
import itertools
import json
import logging
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.data.sources import split_records
from anchor_jax.data.textures import gather_person
from anchor_jax.evaluation.metrics import psnr
from anchor_jax.files.fields import read_fields
from anchor_jax.files.outputs import new_file
from anchor_jax.inference.animate import animate_parts
from anchor_jax.inference.motions import read_motion
from anchor_jax.motion.frames import Motion
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
  try:
    choice = _compare(Path(workdir))
  except UserError as error:  # the training is done, and must not fail over this
    log.warning("the head was not compared with the body: %s", error)
    choice = None
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
  source = open_prepared(head.config.data.path)
  records = _held_out(source, body, head)
  if not len(records) or source.size != body.frame_size or len(source.meta["people"]) != 1:
    return None
  if needs_texture(body.config.data.pose_channels):  # without the frames that are to be painted, as in training
    gathered, numbers = gather_person(source)
    known = gathered.texture(int(gathered.blocks.of_frame[np.searchsorted(numbers, records[-1])]))
    body = dataclasses.replace(body, texture=known)
  pairs = itertools.islice(animate_parts(body, head, _motion_of(source, records)), len(records))
  repainted, painted = (np.stack(side) for side in zip(*pairs, strict=True))
  truth = [source.read(int(record), ("frame", "face_mask")) for record in records]
  frames, masks = (np.stack([record[name] for record in truth]) for name in ("frame", "face_mask"))
  if not (masks > 127).any():
    return None
  # equal pictures have an infinite PSNR, which JSON can't hold
  body_psnr, head_psnr = (round(min(psnr(pictures, frames, masks), 100.0), 3) for pictures in (painted, repainted))
  return HeadChoice(body_psnr, head_psnr, len(records))


def _held_out(source: PreparedSource, body: Part, head: Part) -> Int[NdArray, " N"]:
  """The last frames of the film that neither part was trained on, if they have faces."""
  if body.config.data.path != head.config.data.path:
    return np.zeros(0, int)
  faces = np.flatnonzero(source.has_landmarks)
  unseen = split_records(len(source), body.config.data.validation)[1]
  if needs_texture(body.config.data.pose_channels):
    unseen = unseen[source.has_surface[unseen]]
  unseen = np.intersect1d(unseen, faces[split_records(len(faces), head.config.data.validation)[1]])[-_FRAMES:]
  ends = np.flatnonzero((np.diff(unseen) != 1) | (np.diff(source.videos[unseen]) != 0))  # one clip, no gaps
  return unseen[ends[-1] + 1 :] if len(ends) else unseen


def _motion_of(source: PreparedSource, records: Int[NdArray, " N"]) -> Motion:
  """The motion of successive records of one video."""
  video = int(source.videos[records[0]])
  motion = read_motion(source.folder, video=video, camera="film")  # to compare with the film
  offset = int(records[0]) - source.meta["videos"][video]["first"]
  return dataclasses.replace(motion, length=len(records), frames=lambda first: motion.frames(offset + first))
