import numpy as np
import pytest
from globes import globe

from anchor_jax.data.appearances import gather_person
from anchor_jax.data.records import build, open_prepared
from anchor_jax.errors import UserError
from anchor_jax.motion.clips import PosedClip
from anchor_jax.motion.sidecar import PosedFrame

SIZE = 32


def posed(turn, chart_offset=0, surface=True):
  film = globe(turn, SIZE)
  chart = film.surface.copy()
  chart[..., 0] += np.where(chart[..., 0] > 0, chart_offset, 0).astype(np.uint8)
  return PosedFrame(
    film.frame, film.frame, film.person_mask, film.person_mask, film.landmarks, chart if surface else None
  )


def folder(tmp_path, **clips):
  made = (PosedClip(name, person, 4.0, iter(frames), None) for name, (person, frames) in clips.items())
  build(made, tmp_path / "data", SIZE)
  return open_prepared(tmp_path / "data")


def test_a_person_is_gathered_from_her_own_records(tmp_path):
  ana = [posed(i / 8) for i in range(8)]
  bea = [frame._replace(frame=255 - frame.frame) for frame in ana]
  bare = [posed(0.5, surface=False)]
  source = folder(tmp_path, one=("ana", ana[:4]), other=("bea", bea), two=("ana", ana[4:]), old=("ana", bare))
  gathered, records = gather_person(source, 0)
  assert records.tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
  assert gathered.blocks.video.tolist() == [0, 2]
  made = gathered.appearance()
  inside = made.plate_coverage > 0
  assert np.abs(made.plate.astype(int) - ana[0].frame)[inside].max() <= 1  # not bea's wall, which is the negative
  other = gather_person(source, 1)[0].appearance()
  assert np.abs(other.plate.astype(int) - bea[0].frame)[inside].max() <= 1
  # A block of ana's first video sees her second one alone.
  assert set(np.array(records)[list(gathered.key_frames(0))]) <= {12, 13, 14, 15}


def test_folders_without_known_surfaces_say_what_to_do(tmp_path):
  with pytest.raises(UserError, match="does not say where"):
    gather_person(folder(tmp_path, old=("ana", [posed(0, surface=False)])))
  with pytest.raises(UserError, match="another version"):
    gather_person(folder(tmp_path, new=("ana", [posed(0, chart_offset=200)])))
