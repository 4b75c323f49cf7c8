import jax
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.data.loader import make_loader
from anchor_jax.data.records import build, open_prepared
from anchor_jax.data.sources import ArraySource
from anchor_jax.films.poses import PosedClip


def numbers(count=12, people=3):
  return ArraySource({"frame": np.arange(count)}, np.arange(count) % people)


def batches(count, source=None, **options):
  options = {"batch_size": 4, "seed": 0, "target": ("frame",)} | options
  loader = make_loader(source or numbers(), **options)
  return [next(loader) for _ in range(count)], loader


def same(left, right):
  return all(
    np.array_equal(x, y)
    for a, b in zip(left, right, strict=True)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def frames(batches, side="target"):
  return np.concatenate([batch[side]["frame"] for batch in batches])


def test_epochs_are_complete_and_reshuffled():
  seen = frames(batches(6)[0])
  assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
  assert seen[:12].tolist() != seen[12:].tolist() != list(range(12))


def test_reference_is_another_frame_of_the_same_person():
  many = batches(60)[0]
  frame, reference = frames(many), frames(many, "reference")
  assert (frame % 3 == reference % 3).all() and (frame != reference).all()
  assert len(set(zip(frame.tolist(), reference.tolist(), strict=True))) == 12 * 3  # all pairs occur
  alone = batches(1, ArraySource({"frame": np.arange(2)}, np.arange(2)))[0][0]
  np.testing.assert_array_equal(alone["target"]["frame"], alone["reference"]["frame"])  # the only frame of the person


def test_same_batches_for_any_number_of_processes():
  full = batches(5)[0]
  shards = [batches(5, process_index=i, process_count=2)[0] for i in range(2)]
  joined = [jax.tree.map(lambda *rows: np.concatenate(rows), left, right) for left, right in zip(*shards, strict=True)]
  assert same(full, joined)
  assert not same(full, batches(5, seed=1)[0])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_disjoint_shards_of_an_epoch(processes):
  shards = [batches(3, process_index=i, process_count=processes)[0] for i in range(processes)]
  read = [np.concatenate([batch["record"] for batch in shard]).tolist() for shard in shards]
  assert all(len(numbers) == 12 // processes for numbers in read)
  assert sorted(np.concatenate(read).tolist()) == list(range(12))


def test_state_restores_also_with_another_number_of_processes():
  first, loader = batches(7)
  state = batches(3)[1].get_state()
  resumed = make_loader(numbers(), batch_size=4, seed=0, target=("frame",))
  resumed.set_state(state)
  assert same(first[3:], [next(resumed) for _ in range(4)])
  shard = make_loader(numbers(), batch_size=4, seed=0, target=("frame",), process_index=1, process_count=2)
  shard.set_state(state)
  np.testing.assert_array_equal(next(shard)["target"]["frame"], first[3]["target"]["frame"][2:])
  assert loader.get_state() == {"global_next_index": 28}


def test_without_reference_fields_no_reference_is_read():
  read = []

  class Counting(ArraySource):
    def read(self, index, fields):
      read.append(fields)
      return super().read(index, fields)

  source = Counting({"frame": np.arange(12)}, np.zeros(12, int))
  batch = batches(1, source, reference=())[0][0]
  assert batch["reference"] == {} and len(batch["target"]["frame"]) == 4
  assert set(read) == {("frame",)}


def test_records_select_targets_and_references():
  seen = batches(9, records=np.array([0, 3, 4, 7]))[0]
  assert set(np.r_[frames(seen), frames(seen, "reference")].tolist()) == {0, 3, 4, 7}
  with pytest.raises(UserError, match="no record"):
    batches(1, records=np.array([], int))
  with pytest.raises(UserError, match="cannot be sharded"):
    batches(1, process_count=3)


def test_batches_of_a_prepared_folder(tmp_path, posed_frames):
  build([PosedClip("a", "a", 25.0, posed_frames(6))], tmp_path / "a", 32)
  source = open_prepared(tmp_path / "a")
  batch = batches(1, source, target=("frame", "pose", "person_mask"))[0][0]
  assert batch["target"]["frame"].shape == batch["reference"]["frame"].shape == (4, 32, 32, 3)
  for row, index in enumerate(batch["record"]):
    np.testing.assert_array_equal(batch["target"]["pose"][row], source[int(index)]["pose"])


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path, posed_frames):
  build([PosedClip("a", "a", 25.0, posed_frames(9))], tmp_path / "a", 32)
  source = open_prepared(tmp_path / "a")
  alone, several = batches(5, source)[0], batches(5, source, workers=2)
  assert same(alone, several[0])
  several[1].close()


def test_clips_are_consecutive_frames_of_one_video():
  source = ArraySource({"frame": np.arange(7)[:, None]}, np.array([0] * 7), np.array([0, 0, 0, 0, 1, 1, 1]))
  batch = next(make_loader(source, batch_size=7, seed=0, target=("frame",), clip=3))
  clips = {int(index): clip[:, 0].tolist() for index, clip in zip(batch["record"], batch["target"]["frame"])}
  assert clips == {0: [0, 1, 2], 1: [1, 2, 3], 2: [2, 3, 3], 3: [3, 3, 3], 4: [4, 5, 6], 5: [5, 6, 6], 6: [6, 6, 6]}
  assert batch["reference"]["frame"].shape == (7, 1)


def test_clips_end_with_the_usable_records():
  loader = make_loader(numbers(10, 1), batch_size=7, seed=0, target=("frame",), records=np.arange(7), clip=4)
  assert next(loader)["target"]["frame"].max() == 6


def test_references_may_be_drawn_from_other_records_than_targets():
  options = {"records": np.arange(8, 12), "references": np.arange(8)}
  seen = batches(9, **options)[0]
  targets, references = frames(seen), frames(seen, "reference")
  assert set(targets) == {8, 9, 10, 11} and references.max() < 8
  assert all(target % 3 == reference % 3 for target, reference in zip(targets, references))
