"""The appearance of a person in a prepared folder."""

from typing import NamedTuple

import numpy as np

from anchor_jax.appearance.blocks import plan_blocks
from anchor_jax.appearance.gather import KEY_FRAMES, FilmFrame, Gathered, gather
from anchor_jax.data.records import PreparedSource
from anchor_jax.errors import UserError
from anchor_jax.motion.surface import CHARTS
from anchor_jax.shapes import Int, NdArray

_FIELDS = ("frame", "surface", "person_mask", "landmarks")


class GatheredPerson(NamedTuple):
  """What a prepared folder tells of one person.

  Attributes:
    gathered: her appearance, for a new motion (`appearance()`) and for training on one of its blocks.
    records: the records it was gathered from, in order; record `records[i]` is in block `gathered.blocks.of_frame[i]`.
  """

  gathered: Gathered
  records: Int[NdArray, " N"]


def gather_person(source: PreparedSource, person: int = 0, key_frames: int = KEY_FRAMES) -> GatheredPerson:
  """Gathers the appearance of one person from all her records that have a surface map, in a few seconds a minute.

  Args:
    source: a prepared folder.
    person: her number in it.
    key_frames: how many to keep for each block.

  Raises:
    UserError: no record of hers has a surface map, or a map names parts of the body that this version does not know.
  """
  records = np.flatnonzero((source.people == person) & source.has_surface)
  if not len(records):
    raise UserError(f"{source.folder} does not say where on the body its pixels lie: prepare the videos again")

  def read(number: int) -> FilmFrame:
    record = source.read(int(records[number]), _FIELDS)
    if record["surface"][..., 0].max() >= len(CHARTS):
      raise UserError(f"{source.folder} divides the body as another version does: prepare the videos again")
    return FilmFrame(record["frame"], record["surface"], record["person_mask"][..., 0], record["landmarks"])

  return GatheredPerson(gather(read, plan_blocks(source.videos[records], source.fps), CHARTS, key_frames), records)
