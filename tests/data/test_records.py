import json
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.encoded import write_block
from anchor_jax.data.record_fields import FIELDS, IMAGES
from anchor_jax.data.records import PosedClip, build, is_prepared, open_prepared
from anchor_jax.data.sources import JoinedSource, load_records
from anchor_jax.files.manifest import LIST
from anchor_jax.inference.motions import read_motion


@pytest.fixture(scope="module")
def clips(posed_frames):
  return lambda: [
    PosedClip("first", "ann", 25.0, posed_frames(5, missing=(1,))),
    PosedClip("second", "bob", 30.0, posed_frames(3, seed=1)),
    PosedClip("third", "ann", 25.0, posed_frames(4, seed=2)),
  ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clips):
  path = tmp_path_factory.mktemp("data") / "prepared"
  build(clips(), path, 32)
  return path


def test_records_come_back_in_order(folder, clips):
  source = open_prepared(folder)
  true = [frame for clip in clips() for frame in clip.frames]
  assert len(source) == 12 and source.size == FrameSize.of(32) and source.fps == 25
  for i, frame in enumerate(true):
    record = source[i]
    assert set(record) == set(FIELDS)
    np.testing.assert_array_equal(record["frame"], frame.frame)
    np.testing.assert_array_equal(record["pose"], frame.pose)
    np.testing.assert_array_equal(record["person_mask"][..., 0], frame.person_mask)
    np.testing.assert_array_equal(record["face_mask"][..., 0], frame.face_mask)
    np.testing.assert_array_equal(record["landmarks"], frame.landmarks)
  assert source.people.tolist() == [0] * 5 + [1] * 3 + [0] * 4
  assert source.videos.tolist() == [0] * 5 + [1] * 3 + [2] * 4
  assert np.flatnonzero(~source.has_landmarks).tolist() == [1]
  assert [int(source[i]["index"]) for i in (4, 5, 11)] == [4, 0, 3]
  assert source.meta["people"] == ["ann", "bob"] and source.meta["videos"][1]["fps"] == 30
  with pytest.raises(IndexError):
    source[12]


def test_surface_maps_come_back_where_they_are_known(tmp_path, posed_frames):
  maps = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
  known = [frame._replace(surface=own) for frame, own in zip(posed_frames(3), maps, strict=True)]
  meta = build([PosedClip("a", "a", 25.0, posed_frames(2)), PosedClip("b", "a", 25.0, known)], tmp_path / "data", 32)
  source = open_prepared(tmp_path / "data")
  assert source.has_surface.tolist() == [False] * 2 + [True] * 3 and meta["without_surface"] == [0, 1]
  np.testing.assert_array_equal([source[i]["surface"] for i in range(5)], np.concatenate([0 * maps[:2], maps]))
  frames = list(read_motion(tmp_path / "data", video=1).frames(0))
  np.testing.assert_array_equal([frame.surface for frame in frames], maps)
  assert [frame.surface for frame in read_motion(tmp_path / "data", video=0).frames(0)] == [None, None]


def test_a_folder_of_an_earlier_version_has_no_surface_maps(clips, tmp_path, monkeypatch):
  before = dict(IMAGES)
  with monkeypatch.context() as patch:  # as earlier versions wrote it: without the feature and without the list
    patch.delitem(IMAGES, "surface")
    meta = build(clips(), tmp_path / "old", 32)
  assert before == IMAGES
  del meta["without_surface"], meta["measures"]
  (tmp_path / "old" / "meta.json").write_text(json.dumps(meta))
  source = open_prepared(tmp_path / "old")
  assert source.measures == [None] * len(meta["people"])
  assert not source.has_surface.any() and set(source[3]) == set(FIELDS)
  assert not source[3]["surface"].any() and source[3]["surface"].shape == (32, 32, 3)
  assert next(read_motion(tmp_path / "old", video=0).frames(0)).surface is None


def test_a_folder_has_a_preview_and_is_loaded_and_pickled(folder):
  sheet = cv2.imread(str(folder / "preview.png"))
  assert sheet is not None and sheet.shape == (6 * 256, 4 * 256, 3)
  source = open_prepared(folder)
  loaded = load_records(source, ("frame", "person"))
  np.testing.assert_array_equal(loaded.arrays["frame"][7], source[7]["frame"])
  assert loaded.arrays["person"].tolist() == source.people.tolist()
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy[3]["pose"], source[3]["pose"])


def test_people_of_joined_sources_are_distinct(folder):
  joined = JoinedSource([open_prepared(folder), open_prepared(folder)])
  assert len(joined) == 24 and joined.people.max() == 3 and joined.videos.max() == 5
  np.testing.assert_array_equal(joined.read(15, ("frame",))["frame"], joined.read(3, ("frame",))["frame"])


def test_a_folder_is_replaced_only_on_success(clips, posed_frames, tmp_path):
  path = tmp_path / "prepared"
  build(clips(), path, 32)

  def breaks():
    yield from posed_frames(2)
    raise UserError("the video breaks off")

  with pytest.raises(UserError, match="breaks off"):
    build([PosedClip("x", "x", 25.0, breaks())], path, 32)
  with pytest.raises(UserError, match="holds no frame"):
    build([PosedClip("x", "x", 25.0, [])], path, 32)
  with pytest.raises(UserError, match="no frame to prepare"):
    build([], path, 32)
  assert len(open_prepared(path)) == 12 and len(list(tmp_path.iterdir())) == 1
  build([PosedClip("x", "x", 25.0, posed_frames(2))], path, 32)
  assert len(open_prepared(path)) == 2
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.txt").write_text("precious")
  with pytest.raises(UserError, match=r"holds thesis\.txt, which was not written"):
    build(clips(), tmp_path / "mine", 32)


def test_replacing_removes_files_of_training_but_none_of_a_user(clips, posed_frames, tmp_path):
  path, rebuild = tmp_path / "prepared", lambda: build([PosedClip("x", "x", 25.0, posed_frames(2))], path, 32)
  build(clips(), path, 32)
  for name in ("cache", "conditions"):
    (path / f"{name}-{'0f' * 8}").mkdir()
    write_block(path / f"{name}-{'0f' * 8}", 0, {name: np.zeros((12, 1))})
  rebuild()
  (path / LIST).unlink()  # as in folders of earlier versions
  rebuild()
  for name in ("notes.txt", "meta.json", f"cache-{'0f' * 8}/notes.txt"):
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"holds {name}, which was"):
      rebuild()
    (path / name).unlink()


def test_missing_foreign_and_damaged_folders_are_refused(folder, clips, tmp_path):
  assert is_prepared(folder) and not is_prepared(tmp_path)
  with pytest.raises(UserError, match="there is no prepared folder"):
    open_prepared(tmp_path / "nothing")
  with pytest.raises(UserError, match="is not a prepared folder"):
    open_prepared(tmp_path)
  path = tmp_path / "prepared"
  meta = build(clips(), path, 32)
  (path / "meta.json").write_text(json.dumps(meta | {"format": 99}))
  with pytest.raises(UserError, match="format 99"):
    open_prepared(path)
  (path / "meta.json").write_text(json.dumps(meta))
  records = path / next(iter(meta["files"]))
  data = records.read_bytes()
  records.write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match="damaged"):
    open_prepared(path)
  records.write_bytes(bytes(len(data)))
  with pytest.raises(UserError, match=r"damaged \(") as error:
    open_prepared(path)[0]
  assert error.value.__cause__ is not None and "\n" not in str(error.value)
  (path / "meta.json").write_text("{")
  with pytest.raises(UserError, match="damaged"):
    open_prepared(path)


def _many(values):
  values["videos"][-1]["frames"], values["frames"] = 10**11, 8 + 10**11


MALFORMED = {
  "size -4": (lambda values: values.update(size=-4), "meta.json.size is -4: it must be 1"),
  "size text": (lambda values: values.update(size="32"), "size is '32': expected int"),
  "fps nan": (lambda values: values.update(fps=float("nan")), "fps is nan: it must be"),
  "no people": (lambda values: values.pop("people"), "people is missing"),
  "people number": (lambda values: values.update(people=[3, 4]), "people is 3: expected str"),
  "unknown person": (lambda values: values["videos"][0].update(person=7), "videos are out of order"),
  "order": (lambda values: values["videos"].reverse(), "videos are out of order"),
  "many frames": (_many, "frames is 100000000008, in files of"),
  "no video": (lambda values: values.update(videos=[]), "frames is 12, and the videos have 0"),
  "square": (lambda values: values["videos"][0].update(square=[0, 0, -1]), "square is -1: it must be"),
  "negative record": (lambda values: values.update(without_landmarks=[-1]), "without_landmarks is -1"),
  "far record": (lambda values: values.update(without_surface=[10**6]), "without_surface names a record beyond"),
  "files": (lambda values: values["files"].update({"../meta.json": 3}), "files are in other folders"),
  "measures": (lambda values: values.update(measures=[{"place": 3}, None]), "damaged .body measures"),
  "one measure": (lambda values: values.update(measures=[None]), "measures are for 1 people"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_field_of_meta_json_is_checked(folder, tmp_path, name):
  change, message = MALFORMED[name]
  path = tmp_path / "prepared"
  shutil.copytree(folder, path)
  values = json.loads((path / "meta.json").read_text())
  change(values)
  (path / "meta.json").write_text(json.dumps(values))
  with pytest.raises(UserError, match=message) as error:
    open_prepared(path)
  assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_pipes_in_a_prepared_folder_are_refused_without_waiting(folder, tmp_path):
  for name in ("meta.json", "dataset_info.json", "features.json", next(iter(open_prepared(folder).meta["files"]))):
    path = tmp_path / name
    shutil.copytree(folder, path)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(UserError, match=r"is a pipe|is not a prepared folder"):
      open_prepared(path)


def test_the_error_of_a_damaged_record_has_its_number_and_cause(folder, monkeypatch):
  source = open_prepared(folder)
  monkeypatch.setattr(source, "_records", {3: {"frame": b"no picture"}})
  with pytest.raises(UserError, match=r"damaged \(record 3: .*not a picture") as error:
    source.read(3, ("frame",))
  assert isinstance(error.value.__cause__, ValueError) and "\n" not in str(error.value)


def test_records_are_the_same_bytes_in_every_process():
  """Fields are sorted by name; by default, each process has an order of its own."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.example_serializer import ExampleSerializer

  from anchor_jax.data.builder import same_bytes

  names = [f"field_{letter}" for letter in "hgfedcba"]
  features = tfds.features.FeaturesDict({name: tfds.features.Scalar(np.int32) for name in names})
  serializer, original = ExampleSerializer(features.get_serialized_info()), ExampleSerializer.serialize_example
  with same_bytes():
    data = serializer.serialize_example(features.encode_example(dict.fromkeys(names, 1)))
  assert sorted(names, key=lambda name: data.index(name.encode())) == sorted(names)
  assert ExampleSerializer.serialize_example is original
