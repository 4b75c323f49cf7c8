"""evaluate: agrees with the plain formulas, in constant memory; bad input gives a one-line error."""

import tracemalloc

import numpy as np
import pytest
from globes import film

from anchor_jax import evaluate as module
from anchor_jax.body import charts
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import build, open_prepared
from anchor_jax.data.sources import ArraySource
from anchor_jax.evaluation import baselines, metrics, tables
from anchor_jax.evaluation.page import ComparisonPage
from anchor_jax.films.poses import PosedClip
from tests.helpers.strange import strange_files


def source(posed_frames, count, seed=0, size=32):
  frames = list(posed_frames(count, size, seed))
  arrays = {name: np.stack([getattr(frame, name) for frame in frames]) for name in ("frame", "pose")}
  arrays |= {name: np.stack([getattr(f, name) for f in frames])[..., None] for name in ("person_mask", "face_mask")}
  return ArraySource(arrays, np.zeros(count, int))


def test_report_agrees_with_the_plain_formulas(posed_frames):
  truth, training = source(posed_frames, 5), source(posed_frames, 7, seed=3)
  noise = np.random.default_rng(0).integers(-9, 10, truth.arrays["frame"].shape)
  generated = np.clip(truth.arrays["frame"].astype(int) + noise, 0, 255).astype(np.uint8)
  report = module.evaluate(iter(generated), truth, training, without_head=truth.arrays["frame"])
  mean = np.round(training.arrays["frame"].mean(axis=0)).astype(np.uint8)
  flat = [s.arrays["pose"].reshape(len(s), -1).astype(float) for s in (truth, training)]
  nearest = np.square(flat[0][:, None] - flat[1]).sum(-1).argmin(1)
  contenders = {
    "generated": generated,
    "generated_without_head": truth.arrays["frame"],
    "mean_training_frame": np.broadcast_to(mean, generated.shape),
    "nearest_pose_training_frame": training.arrays["frame"][nearest],
  }
  assert report["frames"] == 5 and report["training_frames"] == 7
  assert "hands" not in report and set(report["person"]) == set(contenders)  # without surface maps
  masks = {region: truth.arrays[f"{region}_mask"] for region in ("person", "face")} | {"whole": None}
  for region, mask in masks.items():
    for name, frames in contenders.items():
      for figure in ("psnr", "ssim", "flicker", "sharpness"):
        expected = getattr(metrics, figure)(frames, truth.arrays["frame"], mask)
        assert report[region][name][figure] == pytest.approx(expected, abs=1e-4), (region, name, figure)


def test_page_finds_the_worst_frame_and_reports_are_compared(posed_frames, tmp_path):
  truth = source(posed_frames, 6)
  generated = truth.arrays["frame"] ^ 3
  generated[4] ^= 64
  with ComparisonPage(25.0) as page:
    report = module.evaluate(generated, truth, truth, page=page)
    assert page.worst()[0] == 4 and len(page.worst()) == 6
    assert "<td>generated</td>" in page.text(report)
  for folder in ("a", "b"):
    (tmp_path / folder).mkdir()
    tables.save_report(report, tmp_path / folder / "report.json")
  table = tables.comparison(tables.read_reports([tmp_path / name / "report.json" for name in "ab"]))
  rows = [line.split() for line in table.splitlines() if "report" in line]
  assert [row[0] for row in rows] == ["a/report", "b/report"] * 2 and rows[0][1:] == rows[1][1:]
  assert float(rows[0][1]) == round(report["person"]["generated"]["psnr"], 2)
  with pytest.raises(UserError, match="not a report"):
    (tmp_path / "c.json").write_text('{"person": {}}')
    tables.read_reports([tmp_path / "c.json"])
  for text, message in (
    ("[", "is damaged"),
    ('{"person": 3}', "not a report"),
    ('{"person": {"generated": {"psnr": "high"}}}', "psnr is 'high': expected float"),
    ('{"person": {"generated": {}}, "face": {}}', "face.generated is missing"),
  ):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=message):
      tables.read_reports([tmp_path / "c.json"])
  for path, message in strange_files(tmp_path / "odd", ".json").items():
    with pytest.raises(UserError, match=message):
      tables.read_reports([path])


def test_true_flow_is_computed_once_per_frame(posed_frames, monkeypatch):
  found, truth = [], source(posed_frames, 5)
  find = metrics.FlowFinder.next
  monkeypatch.setattr(metrics.FlowFinder, "next", lambda self, frame: found.append(frame) or find(self, frame))
  report = module.evaluate(truth.arrays["frame"], truth, truth)
  assert len(found) == 5
  for contender in report["person"].values():
    assert contender["flow_error_of_truth"] == report["person"]["generated"]["flow_error"]


def test_nearest_poses_do_not_depend_on_the_block_size(posed_frames, monkeypatch):
  truth, training = source(posed_frames, 6), source(posed_frames, 9, seed=2)
  at_once = list(baselines.nearest_poses(truth, training, range(6)))
  monkeypatch.setattr(baselines, "_BLOCK_BYTES", 4 * 32 * 32 * 3 * 2)  # two renders at a time
  assert list(baselines.nearest_poses(truth, training, range(6))) == at_once


class Endless(ArraySource):
  """One record, repeated."""

  def __init__(self, one, count):
    super().__init__({}, np.zeros(count, int))
    self.one = one

  def read(self, index, fields):
    return self.one.read(0, fields)


@pytest.mark.slow  # evaluates long clips
def test_memory_does_not_grow_with_the_length(posed_frames, monkeypatch):
  monkeypatch.setattr(baselines, "_BLOCK_BYTES", 2**20)
  one = source(posed_frames, 1, size=64)

  def peak(count):
    records = Endless(one, count)
    tracemalloc.start()
    module.evaluate((one.arrays["frame"][0] for _ in range(count)), records, records)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found

  peak(4)
  assert peak(60) < peak(20) + 2**20  # 40 frames of 64 pixels as float32 are 2 MB


def test_wrong_input_gives_a_one_line_error(posed_frames):
  truth = source(posed_frames, 3)
  frames = truth.arrays["frame"]
  for generated, without_head, line in (
    (np.repeat(frames, 2, axis=0), None, "6 generated frames and only 3"),
    (iter(np.repeat(frames, 2, axis=0)), None, "more than 3 generated frames"),
    ([], None, "no generated frame"),
    (frames[:, ::2], None, "32x16 pixels"),
    (frames, frames[:2], "different numbers"),
  ):
    with pytest.raises(UserError, match=line):
      module.evaluate(generated, truth, truth, without_head)


def with_hand(frame):
  """Turns the globe's stand into a striped hand."""
  chart = np.where(frame.surface[..., 0] == charts.chart("chest"), charts.chart("palm", "left"), frame.surface[..., 0])
  hand = chart == charts.chart("palm", "left")
  stripes = np.where(np.arange(len(hand)) % 2, 120, 40)[:, None, None]
  picture = np.where(hand[..., None], stripes, frame.frame).astype(np.uint8)
  where = np.dstack([chart.astype(np.uint8), frame.surface[..., 1:]])
  return frame._replace(frame=picture, surface=where)


def test_hands_and_the_texture_baseline(tmp_path):
  frames = [with_hand(frame) for frame in film(24)]
  for name, chosen in (("film", frames[::2]), ("unseen", frames[1:12:2])):
    build([PosedClip("clip", "ana", 4.0, chosen)], tmp_path / name, 32)
  truth = open_prepared(tmp_path / "unseen")
  records = [truth.read(i, ("frame", "surface", "person_mask")) for i in range(len(truth))]
  frames, masks = (np.stack([record[name] for record in records]) for name in ("frame", "person_mask"))
  hands = np.stack([charts.hands_mask(record["surface"]) for record in records])[..., None]
  # The hand has half the contrast: stripes of 40 become 70, those of 120 become 110. Everything else is exact.
  generated = np.where(hands > 0, (frames.astype(int) - 80) // 2 + 90, frames).astype(np.uint8)
  report = module.evaluate(generated, truth, tmp_path / "film")
  hand, person = report["hands"]["generated"], report["person"]["generated"]
  assert hand["sharpness"] == 0.25
  dark = (frames[hands[..., 0] > 0] == 40).mean()
  assert hand["psnr"] == pytest.approx(10 * np.log10(255**2 / (30**2 * dark + 10**2 * (1 - dark))), abs=1e-4)
  share = (hands > 0).sum() / (masks > 0).sum()
  assert person["psnr"] == pytest.approx(hand["psnr"] - 10 * np.log10(share), abs=1e-4)
  for region in ("person", "face", "hands", "whole"):
    texture, mean = report[region]["texture_alone"], report[region]["mean_training_frame"]
    assert texture["ssim"] > mean["ssim"] and texture["psnr"] > mean["psnr"] + 1, region
  assert hand["psnr"] < report["hands"]["mean_training_frame"]["psnr"]
  assert report["beats_both_baselines_in"] == {
    "person": True, "face": True, "hands": False, "whole": True,
  }  # fmt: skip
  assert report["beats_both_baselines"]  # the person's
  lines = tables.summary(report).splitlines()
  assert len(lines) == 2 * (2 + 4) and max(map(len, lines)) < 120 and lines[0].split() == ["person", "face", "hands"]
  assert lines[2].startswith("generated") and f"{hand['psnr']:.2f}" in lines[2] and "0.25" in lines[2]
  assert lines[-1].startswith("texture alone")


def test_texture_baseline_needs_surface_maps_in_both_folders(tmp_path, posed_frames):
  build([PosedClip("clip", "ana", 4.0, film(6))], tmp_path / "new", 32)
  build([PosedClip("clip", "ana", 4.0, posed_frames(6))], tmp_path / "old", 32)
  for truth, training in (("new", "old"), ("old", "new")):
    source = open_prepared(tmp_path / truth)
    generated = [source.read(i, ("frame",))["frame"] for i in range(6)]
    report = module.evaluate(generated, source, tmp_path / training)
    assert "texture_alone" not in report["person"] and "hands" not in report
    assert report["person"]["generated"]["psnr"] == float("inf")
    assert len(tables.summary(report).splitlines()) == 2 * (2 + 3)


def test_summary_advises_against_a_head_that_lowers_psnr():
  figures = {
    name: {"psnr": value, "ssim": 0.5} for name, value in (("generated", 20.0), ("generated_without_head", 21.0))
  }
  assert "--no-head" in tables.summary({"person": figures, "face": figures})
  swapped = {"generated": figures["generated_without_head"], "generated_without_head": figures["generated"]}
  assert "--no-head" not in tables.summary({"person": swapped, "face": swapped})
