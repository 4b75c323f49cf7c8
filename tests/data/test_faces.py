import numpy as np
import pytest

from anchor_jax.data.faces import head_source
from anchor_jax.data.sources import ArraySource
from anchor_jax.errors import UserError


def test_head_source_leaves_out_what_has_no_face(posed_frames):
  frames = list(posed_frames(3, 64, missing=(1,)))
  arrays = {name: np.stack([getattr(frame, name) for frame in frames]) for name in ("frame", "pose", "landmarks")}
  arrays["face_mask"] = np.stack([frame.face_mask[..., None] for frame in frames])
  known = np.array([True, False, True])
  head = head_source(ArraySource(arrays, np.array([0, 0, 1]), has_landmarks=known), 32)
  assert head.arrays["record"].tolist() == [0, 2] and head.people.tolist() == [0, 1]
  assert head.arrays["frame"].shape == (2, 32, 32, 3) and head.arrays["keep_mask"].shape == (2, 32, 32, 1)
  with pytest.raises(UserError, match="no face"):
    head_source(ArraySource(arrays, np.zeros(3, int), has_landmarks=np.zeros(3, bool)), 32)
