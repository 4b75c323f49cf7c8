import numpy as np
import pytest

from anchor_jax.body.face_crop import crop_image, face_transform, keep_mask
from anchor_jax.core.errors import UserError
from anchor_jax.data.faces import head_source
from anchor_jax.data.sources import ArraySource


class Counted(ArraySource):
  """A source that records what is read from it."""

  def __init__(self, *arguments, **more):
    super().__init__(*arguments, **more)
    self.read_fields = []

  def read(self, index, fields):
    self.read_fields.append((index, tuple(fields)))
    return super().read(index, fields)


def test_head_source_skips_records_without_a_face_and_reads_lazily(posed_frames):
  frames = list(posed_frames(3, 64, missing=(1,)))
  arrays = {name: np.stack([getattr(frame, name) for frame in frames]) for name in ("frame", "pose", "landmarks")}
  arrays["face_mask"] = np.stack([frame.face_mask[..., None] for frame in frames])
  known = np.array([True, False, True])
  source = Counted(arrays, np.array([0, 0, 1]), has_landmarks=known)
  head = head_source(source, 32)
  assert not source.read_fields
  assert [int(head.read(index, ("record",))["record"]) for index in range(2)] == [0, 2]
  assert head.people.tolist() == [0, 1] and len(head) == 2 and head.has_landmarks.all() and not source.read_fields
  crop = head.read(1, ("frame", "pose", "keep_mask"))
  assert {name: value.shape for name, value in crop.items()} == {
    "frame": (32, 32, 3), "pose": (32, 32, 3), "keep_mask": (32, 32, 1)
  }  # fmt: skip
  assert source.read_fields == [(2, ("face_mask", "frame", "landmarks", "pose"))]
  to_crop = face_transform(arrays["landmarks"][2], 32)
  np.testing.assert_array_equal(crop["frame"], crop_image(arrays["frame"][2], to_crop, 32, extend=True))
  np.testing.assert_array_equal(crop["pose"], crop_image(arrays["pose"][2], to_crop, 32))
  np.testing.assert_array_equal(crop["keep_mask"], keep_mask(arrays["face_mask"][2], to_crop, 32))
  np.testing.assert_array_equal(head.read(1, ("pose",))["pose"], crop["pose"])
  assert source.read_fields[-1] == (2, ("landmarks", "pose"))  # the frame is not decoded
  with pytest.raises(KeyError, match="no surface"):
    head.read(0, ("surface",))
  with pytest.raises(UserError, match="no face"):
    head_source(ArraySource(arrays, np.zeros(3, int), has_landmarks=np.zeros(3, bool)), 32)
