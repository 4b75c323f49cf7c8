"""The report page: worst frames first, self-contained, memory for a few pictures only."""

import base64
import re

import cv2
import numpy as np

from anchor_jax.evaluation.page import WORST, ComparisonPage
from anchor_jax.video.read import read_frames

FPS, SIZE = 12.5, 32


def record(number):
  frame = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
  return {"pose": np.full_like(frame, 90), "frame": frame}


def test_worst_frames_are_listed_worst_first(tmp_path):
  decibels = np.random.default_rng(0).uniform(20, 30, 40)
  decibels[17], decibels[30] = 5.0, np.inf  # a planted bad frame, and a perfect one
  with ComparisonPage(FPS, tmp_path / "kept.mp4") as page:
    for number, value in enumerate(decibels):
      alone = {"person": {"psnr": value, "ssim": 0.5}} if number != 3 else {"person": {}, "face": {"psnr": 11.0}}
      page.add(255 - record(number)["frame"], record(number), alone)
    assert page.worst() == [n for n in np.argsort(decibels) if n != 3][:WORST] and page.worst()[0] == 17
    text = page.text({"person": {"generated_<b>": {"psnr": 24.5, "flow_error": 1.25}}, "frames": 40})
  assert re.findall(r"<tr><td>(\d+)</td>", text) == [str(number) for number in page.worst()]
  assert "generated &lt;b&gt;" in text and "<td>24.50</td>" in text and "<td>1.25</td>" in text
  sources = re.findall(r'(?:src|href)="([^"]*)"', text)
  assert len(sources) == 1 + WORST and all(source.startswith("data:") for source in sources)
  data = [base64.b64decode(source.split(",")[1]) for source in sources]
  assert (tmp_path / "kept.mp4").read_bytes() == data[0]
  frames = list(read_frames(tmp_path / "kept.mp4"))
  assert len(frames) == 40 and frames[0].shape[1] > 3 * SIZE
  strip = cv2.imdecode(np.frombuffer(data[1], np.uint8), cv2.IMREAD_COLOR)
  side = strip.shape[1] // 3
  assert np.abs(strip[:, :side].astype(int) + strip[:, side : 2 * side] - 255).mean() < 12  # generated, then truth


def test_curves_leave_gaps_and_have_few_points():
  with ComparisonPage(FPS) as page:
    for number in range(1500):
      known = {"psnr": 20.0 + number % 7} if not 600 <= number < 900 else {}
      page.add(record(0)["frame"], record(0), {"person": known})
    text = page.text({})
  lines = re.findall(r'points="([^"]*)"', text)
  assert len(lines) == 2 and "120.0 s" in text and "first 60 s" in text
  assert sum(len(line.split()) for line in lines) == 400  # of 1,200 known frames
