"""A film is learned, and what is generated is compared with the part that was held out."""

import pytest
from published import alexnet
from safetensors.numpy import save_file

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import open_prepared
from anchor_jax.demo import CONFIGS, Size, film_demo, settings_for
from anchor_jax.landmarks.framing import AutoSize, parse_size
from anchor_jax.studio import write_studio_video


@pytest.mark.parametrize(
  ("size", "expected"),
  [
    *(("64", 128), ("128", 128), ("128x256", 128), ("192", 128), ("256", 256), ("192x384", 256), ("320x576", 512)),
    *(("512", 512), ("480", 256), ("416", 256), ("200", 128), ("auto", 128), ("auto:256", 256), ("auto:512", 512)),
  ],
)
def test_the_size_of_the_frames_decides_the_settings(size, expected):
  assert settings_for(parse_size(size)) == CONFIGS[expected]


@pytest.mark.parametrize("side", CONFIGS)
@pytest.mark.parametrize("part", [(600, 1000), (700, 700), (1800, 1000), (300, 1000)])
def test_settings_for_an_automatic_size_are_those_of_its_frames(side, part):
  auto = AutoSize(side)
  assert settings_for(auto.of(*part, (1920, 1080))) == settings_for(auto) == CONFIGS[side]


@pytest.mark.slow  # compiles and trains two parts
def test_a_film_is_learned_and_compared_with_its_last_fifth(tmp_path):
  film, output = tmp_path / "film.mp4", tmp_path / "out"
  write_studio_video(film, identity_seed=3, motion_seed=4, seconds=3, size=64, fps=10, workers=1, progress=None)
  weights = tmp_path / "lpips.safetensors"
  save_file(alexnet(), weights)
  report = film_demo(film, output, Size(body_steps=2, head_steps=2), FrameSize.of(64), CONFIGS[128], weights)
  assert (output / "person/body/perceptual/lpips.safetensors").exists() and report["whole"]["generated"]["lpips"] > 0
  assert (report["frames"], report["training_frames"]) == (6, 24)
  contenders = {"generated", "generated_without_head", "mean_training_frame", "nearest_pose_training_frame"}
  for region in ("person", "face", "hands", "whole"):
    assert set(report[region]) == contenders | {"texture_alone"}, region
  parts = [open_prepared(output / name).meta["videos"][0] for name in ("film", "unseen")]
  assert [part["frames"] for part in parts] == [24, 6] and parts[0]["square"] == parts[1]["square"]
  for name in ("report.html", "report.json", "anchor.mp4", "side_by_side.mp4", "contact_sheet.png"):
    assert (output / name).stat().st_size > 0, name
