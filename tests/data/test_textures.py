import dataclasses
import json

import cv2
import numpy as np
import pytest
from globes import film, globe

from anchor_jax.core.errors import UserError
from anchor_jax.data import textures
from anchor_jax.data.records import build, open_prepared
from anchor_jax.data.textures import gather_person, store_textures, stored_texture, texture_of_prepared, unseen_room
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.reference import read_reference
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.texture.stored import write_texture

SIZE = 32


def posed(turn, chart_offset=0, surface=True):
  film = globe(turn, SIZE)
  chart = film.surface.copy()
  chart[..., 0] += np.where(chart[..., 0] > 0, chart_offset, 0).astype(np.uint8)
  return PosedFrame(
    film.frame, film.frame, film.person_mask, film.person_mask, film.landmarks, chart if surface else None
  )


def folder(tmp_path, **clips):
  videos = (PosedClip(name, person, 4.0, iter(frames), None) for name, (person, frames) in clips.items())
  build(videos, tmp_path / "data", SIZE)
  return open_prepared(tmp_path / "data")


def test_a_person_is_gathered_from_the_persons_own_records(tmp_path):
  ana = [posed(i / 8) for i in range(8)]
  bea = [frame._replace(frame=255 - frame.frame) for frame in ana]
  bare = [posed(0.5, surface=False)]
  source = folder(tmp_path, one=("ana", ana[:4]), other=("bea", bea), two=("ana", ana[4:]), old=("ana", bare))
  gathered, records = gather_person(source, 0)
  assert records.tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
  assert gathered.blocks.video.tolist() == [0, 2]
  texture = gathered.texture()
  inside = texture.plate_coverage > 0
  assert np.abs(texture.plate.astype(int) - ana[0].frame)[inside].max() <= 1  # not Bea's wall, which is the negative
  other = gather_person(source, 1)[0].texture()
  assert np.abs(other.plate.astype(int) - bea[0].frame)[inside].max() <= 1
  # A block of Ana's first video sees only Ana's second one.
  assert set(np.array(records)[list(gathered.key_frames(0))]) <= {12, 13, 14, 15}


def test_folders_without_known_surface_maps_are_refused(tmp_path):
  with pytest.raises(UserError, match="has no surface maps"):
    gather_person(folder(tmp_path, old=("ana", [posed(0, surface=False)])))
  with pytest.raises(UserError, match="another version"):
    gather_person(folder(tmp_path, new=("ana", [posed(0, chart_offset=200)])))


def stored_folder(path, people=1, count=8):
  clips = [PosedClip(f"{i}", f"person {i}", 4.0, film(count)) for i in range(people)]
  build(clips, path, SIZE, finish=store_textures)
  return open_prepared(path)


def same(one, other):
  return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one) if name != "charts")


def test_the_stored_texture_is_the_gathered_one_and_is_read_instead(tmp_path, monkeypatch):
  source = stored_folder(tmp_path / "two", people=2)
  names = {path.name for path in source.folder.iterdir() if "appearance" in path.name}
  assert names == {"appearance.safetensors", "appearance_1.safetensors", "appearance.png"}
  copy = stored_folder(tmp_path / "copy", people=2)
  for person in (0, 1):
    gathered = gather_person(source, person).gathered.texture()
    assert same(stored_texture(source, person), gathered) and same(stored_texture(copy, person), gathered)
  picture = cv2.imread(str(source.folder / "appearance.png"))
  assert np.array_equal(picture[: len(picture) // 2], picture[len(picture) // 2 :])  # both people are the same globe
  purple = (picture[:256, :256] == (90, 0, 90)).all(axis=-1).mean()  # of the plate, which is enlarged smoothly
  unseen = unseen_room(gathered)
  assert unseen == (gathered.plate_coverage == 0).mean() and 0.2 < unseen < 0.9 and 0.6 * unseen < purple <= unseen
  monkeypatch.setattr(textures, "gather", None)  # gathering would fail
  assert same(read_reference(source.folder).texture, gathered)


def other_charts(texture):
  return dataclasses.replace(texture, charts=tuple((name[::-1], wraps) for name, wraps in texture.charts))


def of_another_size(texture):
  small = {name: value[:16, :16] for name, value in vars(texture).items() if name.startswith("plate")}
  small |= {name: value[:, :16, :16] for name, value in vars(texture).items() if name.startswith("key")}
  return dataclasses.replace(texture, **small)


@pytest.mark.parametrize(
  "change",
  [
    lambda path, texture: path.unlink(),  # a folder of an earlier version
    lambda path, texture: path.write_bytes(path.read_bytes()[:-100]),
    lambda path, texture: write_texture(path, other_charts(texture)),
    lambda path, texture: write_texture(path, of_another_size(texture)),
  ],
)
def test_a_damaged_or_unsuitable_file_is_ignored(tmp_path, change):
  source = stored_folder(tmp_path / "ana")
  texture = stored_texture(source)
  change(source.folder / "appearance.safetensors", texture)
  assert stored_texture(source) is None
  assert same(texture_of_prepared(source), texture) and same(read_reference(source.folder).texture, texture)


def test_training_does_not_read_the_file(tmp_path):
  """Training frames must not see their own block, which the stored texture contains."""
  source = stored_folder(tmp_path / "ana", count=12)
  write_texture(source.folder / "appearance.safetensors", dataclasses.replace(stored_texture(source), charts=()))
  assert len(gather_person(source).records) == 12


def test_nothing_is_stored_for_many_people_or_without_surfaces(tmp_path):
  many = stored_folder(tmp_path / "many", people=textures.MAX_STORED + 1, count=1)
  build([PosedClip("old", "ana", 4.0, [posed(0, surface=False)])], tmp_path / "old", SIZE, finish=store_textures)
  other = [PosedClip("new", "ana", 4.0, [posed(0, chart_offset=200)])]  # surfaces that this version does not know
  build(other, tmp_path / "new", SIZE, finish=store_textures)
  for folder in (many.folder, tmp_path / "old", tmp_path / "new"):
    assert not list(folder.glob("appearance*")) and json.loads((folder / "meta.json").read_text())["frames"]


def test_a_folder_appears_with_its_texture_or_not_at_all(tmp_path, monkeypatch):
  def killed(path, texture):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(textures, "write_texture", killed)
    stored_folder(tmp_path / "ana")
  assert not list(tmp_path.iterdir())
  assert stored_texture(stored_folder(tmp_path / "ana")) is not None
