"""The page in a real browser, with tiny settings: `make test-app`. Screenshots go to runs/test-app."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile

import av
import chromium
import pytest

from anchor_jax.app.access.marks import MARK

pytestmark = pytest.mark.app
ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = ROOT / "runs/test-app"
LONG = 600_000  # milliseconds; limit for a job on a busy machine


class Server:
  """A process of the page, which can be killed and restarted."""

  def __init__(self, folder, *flags):
    self.folder, self.flags, self.port = folder, flags, chromium.free_port()
    self.url = f"http://127.0.0.1:{self.port}/"
    self.start()

  def start(self):
    self.log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
    # A user's environment, without the eight fake devices that conftest.py sets up.
    environment = {
      name: value for name, value in os.environ.items() if name != "XLA_FLAGS" and not name.startswith("JAX_")
    }
    command = [sys.executable, "-m", "anchor_jax.app", f"--folder={self.folder}", f"--port={self.port}", "--smoke"]
    self.process = subprocess.Popen(
      [*command, *self.flags], cwd=ROOT, env=environment, stdout=self.log, stderr=self.log
    )
    for _ in range(600):
      try:
        return urllib.request.urlopen(self.url, timeout=5).close()
      except OSError:
        assert self.process.poll() is None, pathlib.Path(self.log.name).read_text()
        time.sleep(0.2)
    raise AssertionError("the page does not answer")

  def kill(self):
    self.process.kill()
    self.process.wait()

  def stop(self):
    if self.process.poll() is None:
      self.process.send_signal(signal.SIGTERM)
      self.process.wait(timeout=60)


@pytest.fixture
def serve(tmp_path):
  """Function that starts the page in tmp_path/shop; the page and its jobs are ended after the test."""
  started = []

  def start(*flags):
    started.append(Server(tmp_path / "shop", *flags))
    return started[-1]

  yield start
  for server in started:
    server.stop()


@pytest.fixture(scope="module")
def browser():
  with chromium.started() as browser:
    yield browser


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  """A studio film with sound and its sidecar: the files to upload."""
  from anchor_jax.studio import write_studio_video

  folder = tmp_path_factory.mktemp("film")
  options = {"identity_seed": 1_000_011, "motion_seed": 2_000_005, "seconds": 3, "size": 128, "fps": 10}
  write_studio_video(folder / "ana.mp4", workers=1, progress=None, **options)
  add_sound(folder / "ana.mp4", 3)
  return [str(path) for path in (folder / "ana.mp4", *(folder / "ana.anchor").iterdir())]


def add_sound(video, seconds):
  import numpy as np

  silent = video.with_name("silent.mp4")
  video.rename(silent)
  tone = (np.sin(np.arange(44100 * seconds) / 20) * 9000).astype(np.int16)[None]
  with av.open(str(silent)) as source, av.open(str(video), "w") as target:
    picture = target.add_stream_from_template(source.streams.video[0])
    sound = target.add_stream("aac", rate=44100, layout="mono")
    for packet in source.demux(source.streams.video[0]):
      if packet.size:
        packet.stream = picture
        target.mux(packet)
    for start in range(0, tone.shape[1], 1024):
      frame = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="s16", layout="mono")
      frame.sample_rate, frame.pts = 44100, start
      target.mux(sound.encode(frame))
    target.mux(sound.encode(None))
  silent.unlink()


def opened(browser, url, **options):
  page = browser.new_context(
    accept_downloads=True, **{"viewport": {"width": 1000, "height": 900}, **options}
  ).new_page()
  page.set_default_timeout(120_000)
  page.errors = []
  page.on("pageerror", lambda error: page.errors.append(str(error)))
  look(page, url)
  return page


def look(page, url):
  page.goto(url, wait_until="domcontentloaded")
  page.wait_for_selector("#line .line", timeout=60_000)
  page.wait_for_selector("#motion label", timeout=60_000)


def tab(page, name):
  page.get_by_role("tab", name=name, exact=True).click()


def choose(page, dropdown, label):
  page.click(f"#{dropdown} input")
  page.get_by_role("option", name=label, exact=True).first.click()


def seconds(page, count):
  page.fill("#seconds input[type=number]", str(count))
  page.press("#seconds input[type=number]", "Tab")


def quiet(page):
  """Waits until the queue is empty."""
  page.wait_for_selector("#line .quiet", timeout=LONG)


def expect_message(page, text):
  """Waits for a message and dismisses it."""
  page.get_by_text(text).first.wait_for(timeout=60_000)
  page.evaluate("document.querySelectorAll('.toast-close').forEach(cross => cross.click())")


def picture(page, name, **options):
  PICTURES.mkdir(parents=True, exist_ok=True)
  page.screenshot(path=PICTURES / f"{name}.png", **options)


def downloaded(page, selector, folder):
  with page.expect_download() as download:
    page.click(selector)
  path = folder / download.value.suggested_filename
  download.value.save_as(path)
  return path


def tags_of(path):
  with av.open(str(path)) as video:
    return dict(video.metadata), len(video.streams.audio), sum(1 for _ in video.decode(video=0))


def files_in(folder):
  return [path for path in folder.rglob("*") if path.is_file()]


def test_from_film_to_bundle(browser, serve, film, tmp_path):
  server = serve()
  started = time.monotonic()
  page = opened(browser, server.url)

  # The studio person exists from the start.
  quiet(page)
  seconds(page, 2)
  page.click("#make")
  page.wait_for_selector("video.live", timeout=LONG)
  shown = "document.querySelector('video.live')"
  page.wait_for_function(f"{shown}?.currentTime > 0.1 || !{shown}", timeout=LONG)
  page.wait_for_selector("#videos a[download]", timeout=LONG)
  print(f"first video: {time.monotonic() - started:.1f} s after the page was opened for the first time")
  tags, _, count = tags_of(downloaded(page, "#videos a[download]", tmp_path))
  assert tags["synthetic"] == "true" and "synthetic" in tags["title"] and count == 50
  page.evaluate(
    "(() => { const v = document.querySelector('#videos video'); v.controls = false; v.currentTime = 1.6 })()"
  )
  page.wait_for_timeout(1500)
  picture(page, "video", full_page=True)
  page.set_viewport_size({"width": 390, "height": 844})
  page.wait_for_timeout(1000)
  assert page.evaluate("document.documentElement.scrollWidth") == 390
  picture(page, "video_phone", full_page=True)
  page.set_viewport_size({"width": 1000, "height": 900})

  # Nobody is added without consent.
  tab(page, "New")
  page.fill("#name textarea, #name input", "Ana <b>")
  page.set_input_files("#film input[type=file]", film)
  page.get_by_text("ana.mp4").or_(page.get_by_text("ana")).first.wait_for(timeout=60_000)
  page.wait_for_timeout(2000)
  picture(page, "new", full_page=True)
  page.click("#add")
  expect_message(page, "confirm first that the person in the film agrees")
  page.check("#consent input")
  page.click("#add")
  expect_message(page, "was added: see Training")
  (person,) = [path for path in (tmp_path / "shop/people").iterdir() if path.name != "studio"]

  # The report, then training, which survives a reload and a killed server.
  tab(page, "Training")
  # Until the page shows the new person, the report is the studio person's.
  found = "document.querySelector('.found')?.innerText.toLowerCase()"
  page.wait_for_function(f"{found}?.includes('prepared 30 frames')", timeout=LONG)
  picture(page, "found", full_page=True)
  page.click("#train")
  page.wait_for_selector("#training .job", timeout=60_000)
  page.wait_for_function("document.querySelector('#training svg')", timeout=LONG)
  look(page, server.url)
  choose(page, "who", "Ana <b>")
  tab(page, "Training")
  page.wait_for_selector("#training .job, #training img", timeout=60_000)
  checkpoints = person / "trained/body/checkpoints"
  while not [step for step in checkpoints.glob("*") if step.name.isdecimal()]:
    time.sleep(0.1)
  server.kill()
  reached = max(int(step.name) for step in checkpoints.glob("*") if step.name.isdecimal())
  assert reached < 12, "the training was over before the server was killed"
  server.start()
  look(page, server.url)
  choose(page, "who", "Ana <b>")
  tab(page, "Training")
  page.get_by_text("12 training steps are saved").wait_for(timeout=LONG)
  quiet(page)
  page.wait_for_selector("#training img")
  page.wait_for_timeout(1500)
  picture(page, "training", full_page=True)
  log = (person / "jobs").glob("*.log")
  assert any(text.count("== training") == 2 for text in (path.read_text() for path in log))

  # Videos: before and after training, and with an uploaded motion and its sound.
  tab(page, "Video")
  page.get_by_label("My own film").check()
  page.set_input_files("#motion-film input[type=file]", film)
  page.wait_for_timeout(3000)
  seconds(page, 1)
  page.click("#make")
  page.wait_for_selector("#videos a[download]", timeout=LONG)
  tags, sounds, count = tags_of(downloaded(page, "#videos a[download]", tmp_path))
  assert tags["synthetic"] == "true" and sounds == 1 and count == 10
  page.get_by_label("Calm talk").check()
  page.get_by_label("As before training").check()
  page.click("#make")
  page.wait_for_function("document.querySelectorAll('#videos a[download]').length == 2", timeout=LONG)
  tab(page, "Compare")
  page.wait_for_selector("#pair video")
  page.evaluate("document.querySelectorAll('#pair video').forEach(v => { v.currentTime = 0.5 })")
  page.wait_for_timeout(1500)
  picture(page, "compare", full_page=True)

  # Export, then deletion, which removes everything.
  tab(page, "More")
  page.click("#export")
  page.wait_for_selector("#bundle a[download]", timeout=LONG)
  names = zipfile.ZipFile(downloaded(page, "#bundle a[download]", tmp_path)).namelist()
  assert {"bundle/config.json", "bundle/generate.py"} <= set(names)
  picture(page, "more", full_page=True)
  page.click("#delete")
  expect_message(page, "check the box first")
  page.check("#sure input")
  page.click("#delete")
  expect_message(page, "Deleted")
  left = [path for path in files_in(tmp_path / "shop") if path.relative_to(tmp_path / "shop").parts[1:2] != ("studio",)]
  assert {path.parent.name for path in left if path.suffix == ".mp4"} <= {"motions"}
  assert not person.exists() and not [path for path in files_in(tmp_path / "shop/uploads") if path.name != MARK]
  assert not page.errors and "Traceback" not in (tmp_path / "shop.log").read_text()


def test_a_bad_upload_is_a_message_and_leaves_no_files(browser, serve, tmp_path):
  server = serve("--megabytes=1")
  page = opened(browser, server.url)
  tab(page, "New")
  page.fill("#name textarea, #name input", "Bad")
  page.check("#consent input")
  (tmp_path / "bad.mp4").write_text("this is no film")
  page.set_input_files("#film input[type=file]", [str(tmp_path / "bad.mp4")])
  page.wait_for_timeout(2000)
  page.click("#add")
  expect_message(page, "not a video")
  assert str(tmp_path) not in page.content() and "Traceback" not in page.content()
  picture(page, "bad_upload")
  (tmp_path / "large.mp4").write_bytes(b"x" * 2_000_000)
  page.reload()
  tab(page, "New")
  page.set_input_files("#film input[type=file]", [str(tmp_path / "large.mp4")])
  page.get_by_text("exceed the maximum").first.wait_for()
  assert [path.name for path in (tmp_path / "shop/people").iterdir()] == ["studio"]


def test_two_users_see_nothing_of_each_other_and_can_cancel_jobs(browser, serve, tmp_path):
  server = serve("--host=0.0.0.0")
  ana, bea = (opened(browser, server.url) for _ in range(2))
  tab(ana, "New")
  ana.fill("#name textarea, #name input", "Only Ana's")
  ana.click("#example")
  expect_message(ana, "was added: see Training")
  (person,) = [path for path in (tmp_path / "shop/people").iterdir() if path.name != "studio"]
  bea.get_by_text("Another user's job").first.wait_for(timeout=60_000)
  picture(bea, "other_user")
  tab(ana, "Training")
  ana.wait_for_selector(".found li", timeout=LONG)
  bea.click("#who input")
  assert bea.get_by_role("option").all_inner_texts() == ["✓ Studio person"] or len(bea.get_by_role("option").all()) == 1
  bea.keyboard.press("Escape")
  assert "Only Ana" not in bea.content()
  for what in ("found", "report", "appearance"):
    address = f"{server.url}media/{person.name}/{what}"
    assert (ana.request.get(address).status, bea.request.get(address).status) == (200, 404)
  nobody = browser.new_context().request
  assert nobody.get(f"{server.url}media/{person.name}/found").status == 404
  for path in (person / "person.json", person / "films/film_1.mp4", tmp_path / "shop/token"):
    assert ana.request.get(f"{server.url}gradio_api/file={path}").status in (403, 404)

  tab(ana, "Video")
  ana.click("#make")
  ana.wait_for_selector("#making .job")
  ana.click("#making [data-act=cancel]")
  ana.get_by_text("Canceled.").first.wait_for(timeout=60_000)
  ana.on("dialog", lambda dialog: dialog.accept())
  ana.click("#videos [data-act=remove]")
  ana.wait_for_selector("#videos .quiet")
  assert not files_in(person / "videos") if (person / "videos").exists() else True

  # The printed link makes another browser this machine's owner.
  token = (tmp_path / "shop/token").read_text()
  own = opened(browser, f"{server.url}?owner={token}")
  assert own.url == server.url and token not in own.content()
