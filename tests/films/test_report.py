"""The report page on prepared films."""

import base64
import html.parser
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from films import FPS, disc_shot, messy_film

from anchor_jax.data.records import open_prepared
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.prepare import prepare


class Page(html.parser.HTMLParser):
  """The texts, pictures, bar widths and links of an HTML page."""

  def __init__(self, text):
    super().__init__()
    self.open, self.texts, self.pictures, self.widths, self.links = [], [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    named = dict(attributes)
    if tag not in ("meta", "img"):
      self.open.append(tag)
    if tag == "img":
      assert named["src"].startswith("data:image/jpeg;base64,") and named["alt"]
      data = base64.b64decode(named["src"].split(",")[1])
      self.pictures.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    if tag == "span" and "title" in named:
      self.widths.append(int(named["style"].split("flex:")[1].split(";")[0]))
    self.links += [value for name, value in attributes if name in ("href", "src") and not value.startswith("data:")]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("films")
  frames, _ = messy_film(disc_shot)
  write_posed_video(folder / "a & <b>.mp4", frames, FPS)
  prepare(folder / "a & <b>.mp4", folder / "data", size=32, person="Ann <3")
  return folder / "data"


def test_meta_lists_used_and_skipped_stretches(folder):
  source = open_prepared(folder)
  (film,) = source.meta["films"]
  assert (film["frames"], film["used"], film["shots"]) == (63, 46, 3)
  assert film["left_out"] == {"dark": 4, "blurred": 4, "no person": 6, "short": 3}
  assert [(s["frames"], s["left_out"]) for s in film["stretches"]] == [
    (frames, reason) for frames, _, reason in messy_film(disc_shot)[1]
  ]
  clips = [s for s in film["stretches"] if "clip" in s]
  assert (
    [s["frames"] for s in clips] == [source.meta["videos"][s["clip"]]["frames"] for s in clips] == [8, 8, 6, 13, 11]
  )
  assert len(source) == 46


def test_the_page_is_complete_and_self_contained(folder):
  page = Page((folder / "report.html").read_text(encoding="utf-8"))
  assert not page.open and not page.links  # all tags closed, nothing external
  assert len(page.pictures) == 9 and all(picture is not None for picture in page.pictures)
  assert page.pictures[1].mean() < 20 < page.pictures[0].mean()  # the dark stretch has a dark picture
  assert page.widths == [8, 4, 8, 4, 6, 13, 6, 11, 3]
  assert "46 of 63 frames of 1 film are used." in page.texts and "Films of Ann <3" in page.texts
  outcomes = [text for text in page.texts if text.startswith(("used: clip", "skipped:"))]
  assert outcomes == [
    *("used: clip 0", "skipped: dark", "used: clip 1", "skipped: blurred", "used: clip 2"),
    *("used: clip 3", "skipped: no person", "used: clip 4", "skipped: short"),
  ]


def test_folders_of_earlier_versions_without_films_are_read(folder, tmp_path):
  old = shutil.copytree(folder, tmp_path / "old")
  (old / "report.html").unlink()
  meta = json.loads((old / "meta.json").read_text())
  del meta["films"]
  (old / "meta.json").write_text(json.dumps(meta))
  assert len(open_prepared(old)) == 46


@pytest.mark.slow
def test_a_browser_renders_the_page(folder, tmp_path):
  """Needs a headless browser: the distribution's package `chromium`."""
  browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
  if browser is None:
    pytest.skip("no headless browser: install the distribution's package chromium")
  picture = tmp_path / "page.png"
  flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
  flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1400", "--virtual-time-budget=3000"]
  page = (folder / "report.html").as_uri()
  subprocess.run([browser, *flags, f"--screenshot={picture}", page], check=True, capture_output=True, timeout=120)
  shown = cv2.imread(str(picture))
  assert shown is not None and shown.shape[:2] == (1400, 1000)
  for color in ("3a8f5c", "444a57", "c98a2b", "8a63b8", "9aa3af"):  # the bar shows all five outcomes
    bgr = np.array([int(color[at : at + 2], 16) for at in (4, 2, 0)])
    assert (shown == bgr).all(axis=-1).sum() > 400
  dumped = subprocess.run(
    [browser, *flags, "--dump-dom", page], check=True, capture_output=True, timeout=120, text=True
  )
  assert "46 of 63 frames" in dumped.stdout
