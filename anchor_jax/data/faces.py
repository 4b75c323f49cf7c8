"""The face crops of a prepared folder, which the head trains on."""

import numpy as np

from anchor_jax.data.sources import ArraySource, Source, read_all
from anchor_jax.errors import UserError
from anchor_jax.motion.face import crop_image, face_transform, keep_mask
from anchor_jax.shapes import Int, NdArray


def records_with_faces(source: Source) -> Int[NdArray, " N"]:
  """Returns the numbers of the records whose landmarks are known. Raises UserError where there are none."""
  records = np.flatnonzero(source.has_landmarks)
  if not len(records):
    raise UserError("no face is found in any frame: the head needs a video that shows the person's face")
  return records


def head_source(source: Source, size: int) -> ArraySource:
  """Returns the face crops of all records whose landmarks are known, in memory, for training the head.

  Args:
    source: prepared frames with their poses.
    size: height and width S of the crops, in pixels.

  Returns:
    A source with the fields frame and pose (u8 [S S 3]), keep_mask (u8 [S S 1], 0 where the head repaints, else 255)
    and record (int32, the number in `source`).

  Raises:
    UserError: no record has landmarks.
  """
  records = records_with_faces(source)
  frames = np.empty((len(records), size, size, 3), np.uint8)
  poses, masks = np.empty_like(frames), np.empty((len(records), size, size, 1), np.uint8)
  names = ("frame", "pose", "face_mask", "landmarks")
  for n, fields in enumerate(read_all(source, records.tolist(), names, progress="faces")):
    transform = face_transform(fields["landmarks"], size)
    frames[n] = crop_image(fields["frame"], transform, size, extend=True)
    poses[n] = crop_image(fields["pose"], transform, size)
    masks[n] = keep_mask(fields["face_mask"], transform, size)
  arrays = {"frame": frames, "pose": poses, "keep_mask": masks, "record": records.astype(np.int32)}
  return ArraySource(arrays, source.people[records], source.videos[records])
