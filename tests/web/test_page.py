"""A person in a real browser: `make test-web`. Pictures of the page go to runs/test-web."""

import contextlib
import dataclasses
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import chromium
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import film
from people import make_track
from tiny import drawn_weights, tiny_model

from anchor_jax import export
from anchor_jax.body.cloth import GROUPS
from anchor_jax.body.face_points import mean_face
from anchor_jax.body.pose import PoseRenderer
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import DataConfig, RunConfig, SampleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import build
from anchor_jax.films.poses import PosedClip
from anchor_jax.inference.animate import placed_pose_channels
from anchor_jax.inference.motions import read_motion
from anchor_jax.inference.person import Part, Person, load, read_reference
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.cloth import CELLS, FEATURES, ClothShift
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.retarget import retarget
from anchor_jax.landmarks.proportions.widths import Widths
from anchor_jax.models.networks import Networks
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import FilmFrame, gather
from anchor_jax.texture.look_up.plain import look_up, look_up_tables
from anchor_jax.web import serve
from anchor_jax.web.body import body_description
from anchor_jax.web.folder import NamedMotion, web_tables, write_web
from anchor_jax.web.program import convert, frame_function, input_shapes

pytestmark = pytest.mark.web
PAGE = pathlib.Path(serve.__file__).with_name("page")
PICTURES = pathlib.Path(__file__).resolve().parents[2] / "runs/test-web"
RUNTIME = pathlib.Path(os.environ.get("ORT_WEB", "onnxruntime-web.tgz"))
READY = "window.anchor || document.getElementById('loading').classList.contains('bad')"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """A tiny person with texture, two sampling steps with guidance, and a refiner; and the person's film."""
  model = tiny_model()
  controlnet = dataclasses.replace(model.controlnet, conditioning_channels=23)
  model = dataclasses.replace(model, controlnet=controlnet, refiner=RefinerConfig(23, 2, (8, 8), 4))
  sample = SampleConfig("dpm++2m", 2, window=1, overlap=0, guidance=1.5, guidance_interval=(0.2, 1.0))
  config = RunConfig("body", model=model, sample=sample, data=DataConfig(pose_channels="full"))
  folder = tmp_path_factory.mktemp("tiny") / "film"
  build([PosedClip("clip", "ana", 4.0, list(film(9)))], folder, 32)
  networks = Networks(model)
  body = Part(config, networks, drawn_weights(networks), 1, None)
  return Person(body, None), folder


def channels_of(part, reference, surface):
  return np.asarray(placed_pose_channels(part, reference)(jnp.asarray(surface)))


def test_function_and_program_agree_with_the_library(tiny):
  person, folder = tiny
  reference, motion = read_reference(folder), read_motion(folder, frames=3)
  function = frame_function(person.body, reference.picture, seed=3)
  library = list(person.animate(motion, folder, seed=3))
  for frame, expected in zip(motion.frames(0), library, strict=True):
    channels = channels_of(person.body, reference, frame.surface[None])
    picture = np.asarray(jax.jit(function)(frame.pose[None], channels)) * 255
    assert np.abs(picture[0] - expected).max() < 0.51
  assert np.abs(library[0].astype(int) - library[2]).max() > 5
  assert len(convert(function, input_shapes(person.body)).onnx) > 10_000  # `convert` compares with the function


def test_unsupported_operations_are_reported():
  shape = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.uint8)
  with pytest.raises(UserError, match=r"cannot convert this person .*eigh"):
    convert(lambda pose: jnp.linalg.eigh(pose[0, :, :, 0].astype(jnp.float32))[1][None], [shape])


@contextlib.contextmanager
def served(folder):
  port = chromium.free_port()
  server = subprocess.Popen([sys.executable, folder / "serve.py", str(port)], stdout=subprocess.PIPE)
  try:
    server.stdout.readline()
    yield f"http://127.0.0.1:{port}/"
  finally:
    server.kill()
    server.wait()


def opened(browser, address, **options):
  page = browser.new_page(**options)
  page.goto(address)
  page.wait_for_function(READY, timeout=300_000)
  assert page.evaluate("!!window.anchor"), page.inner_text("#what")
  return page


def frames_of(folder, number, size):
  with gzip.open(folder / f"motions/{number}.bin") as file:
    packed = np.frombuffer(file.read(), np.uint8).reshape(-1, 2, size, size, 3)
  return np.cumsum(packed, axis=0, dtype=np.uint8)


def asked(page, what, frame):
  answer = "answer => Array.from(answer.picture ?? answer)"
  return np.array(page.evaluate(f"anchor.ask('{what}', {{motion: 0, frame: {frame}}}).then({answer})"))


DRAW = """async ({measures, ...points}) => {
  const { PoseRenderer } = await import("/body.js"), body = await (await fetch("/body.json")).json();
  const { pose, surface } = new PoseRenderer(body, SIZE, measures).render(points);
  return { pose: Array.from(pose), surface: Array.from(surface) };
}"""
FOLLOW = """async ({points, target, driver, size}) => {
  const tracking = await import("/track.js");
  Object.assign(window, { tracking, asked: { driver } });
  const by = tracking.scales(driver, target);
  const [tracker, camera] = [0, 1].map(() => new tracking.Tracker(null, size));
  const mapped = points.map((frame) => tracking.retarget(frame, driver, target, by, size));
  // The model's hand depths are relative to the wrist.
  const raw = ({ body, face, hands }) => ({ body, face, hands: hands.map((hand, side) =>
    hand.map(([x, y, z]) => [x, y, z - body[15 + side][2]])) });
  const measured = points.map((frame, i) => tracker.follow(raw(frame), size, size, 10 * i)).at(-1).measures;
  const followed = Array.from({ length: 40 }, (_, i) => {
    const found = raw(points[0]);
    if (i > 2) found.hands[0] = null;
    return camera.follow(found, size, size, i / 10);
  });
  return { mapped, measured, followed };
}"""


@pytest.fixture(scope="module")
def browser():
  """One browser for all tests: Playwright can't start a second one in the same thread."""
  with chromium.started() as started:
    yield started


@pytest.fixture(scope="module")
def drawn(browser, tmp_path_factory):
  """The pictures' size, landmarks of a body with a real face, and a browser with the page's modules."""
  folder, size = tmp_path_factory.mktemp("modules"), 128
  for file in PAGE.iterdir():
    shutil.copyfile(file, folder / file.name)
  shutil.copyfile(serve.__file__, folder / "serve.py")
  (folder / "index.html").write_text("<!doctype html><title>modules</title>")
  (folder / "body.json").write_text(json.dumps(body_description()))
  track = make_track(3, (size, size))
  points, triangles = mean_face()
  face = np.array(track.face)
  for number in range(3):
    turn, half = 0.3 * (number - 1), 0.16 * size / 3.2 * 1.3
    around = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    face[number] = points @ around.T * half + [*track.body[number, 0, :2], 0]
  track = dataclasses.replace(track, face=face.astype(np.float32), triangles=triangles)
  with served(folder) as address:
    page = browser.new_page()
    page.add_init_script(f"globalThis.SIZE = {size};")
    page.goto(address)
    yield size, track, page


def test_exported_person_in_chromium(browser, tmp_path, monkeypatch, capsys):
  """The shipped weights with an unseen film, exported by the command, paint the same frames as JAX."""
  import anchor_jax as aj
  from anchor_jax.studio import write_studio_video

  options = {"identity_seed": 1_000_011, "motion_seed": 2_000_005, "seconds": 2, "size": 128, "fps": 10}
  write_studio_video(tmp_path / "ana.mp4", workers=1, progress=None, **options)
  aj.prepare([tmp_path / "ana.mp4"], tmp_path / "ana", size=128)
  flags = f"--checkpoint=studio --appearance={tmp_path / 'ana'} --output={tmp_path / 'page'} --web --seconds=1"
  flags = [
    *flags.split(),
    f"--onnxruntime={RUNTIME}",
    f"--motion={tmp_path / 'ana'}",
    f"--motion={tmp_path / 'ana.mp4'}",
  ]
  monkeypatch.setattr(sys, "argv", ["export", *flags])
  export.main()
  assert "serve.py" in capsys.readouterr().out
  about = json.loads((tmp_path / "page/person.json").read_text())
  assert [(motion["label"], motion["frames"]) for motion in about["motions"]] == [("ana", 10)] * 2 and about[
    "synthetic"
  ]
  assert str(tmp_path).encode() not in b"".join(p.read_bytes() for p in (tmp_path / "page").rglob("*") if p.is_file())

  body, reference = load("studio", head=False).with_decoder("light").body, read_reference(tmp_path / "ana")
  frames = frames_of(tmp_path / "page", 0, 128)
  function = jax.jit(frame_function(body, reference.picture))
  PICTURES.mkdir(parents=True, exist_ok=True)
  with served(tmp_path / "page") as address:
    page = opened(browser, address, viewport={"width": 760, "height": 1000})
    page.evaluate("anchor.player.playing = false")
    for number in (0, 7):
      pose, surface = frames[number]
      channels = channels_of(body, reference, surface[None])
      np.testing.assert_array_equal(asked(page, "channels", number).reshape(128, 128, 20), channels[0])
      picture = asked(page, "frame", number).reshape(128, 128, 4)
      expected = np.asarray(function(pose[None], channels))[0] * 255
      assert np.abs(picture[..., :3] - expected).max() < 1 and (picture[..., 3] == 255).all()
      assert expected.std() > 20
    page.evaluate("anchor.player.playing = true")
    page.check("#show")
    page.wait_for_function(
      "/^\\d/.test(document.getElementById('speed').textContent)", timeout=300_000
    )  # all frames are cached
    assert page.inner_text("#mark") == "synthetic" and page.is_visible("#pose")
    page.screenshot(path=PICTURES / "page.png")
    page.click("#motions label >> nth=1")
    page.wait_for_function("anchor.player.number === 1 && anchor.player.frame > 1", timeout=300_000)
    page.click("#play")
    shown = page.evaluate("anchor.player.frame")
    time.sleep(1)
    assert page.evaluate("anchor.player.frame") - shown <= 1 and page.inner_text("#play") == "Play"
    phone = opened(browser, address, viewport={"width": 390, "height": 844})
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.screenshot(path=PICTURES / "phone.png")


def sliding():
  """A shirt and hair of which each cell slides its own way with the elbows and the head."""
  rng, cells = np.random.default_rng(2), np.flatnonzero(np.repeat(GROUPS, CELLS**2))
  pattern = rng.normal(0, 0.03, (2, FEATURES + 1)).astype(np.float32)
  shifts = cv2.GaussianBlur(rng.normal(0, 3, (len(cells), 4)).astype(np.float32), (1, 31), 5).reshape(-1, 2, 2)
  one = np.ones(FEATURES, np.float32)
  return ClothShift(0.1 * one, 0.5 * one, -2 * one, 2 * one, pattern, cells, shifts, 0.5)


@pytest.mark.parametrize("cloth", [None, sliding()], ids=["rigid", "sliding"])
def test_poses_are_rendered_as_in_python(drawn, cloth):
  """A standing body that turns its head, with a real face; another library draws the face's lines."""
  size, track, page = drawn
  square, widths = CropRect.square(0, 0, size, size), Widths(jaw=1.1, hair=(1.2, 0.3))
  measures = dataclasses.replace(measure(track, square), widths=widths, cloth=cloth)
  rigid = PoseRenderer(track, square, dataclasses.replace(measures, cloth=None))
  renderer = PoseRenderer(track, CropRect.square(0, 0, size, size), measures)
  for number in range(len(track)):
    expected = renderer.render(number)
    assert ((expected.surface != rigid.render(number).surface).any(axis=-1).mean() > 0.05) == (cloth is not None)
    landmarks = {name: getattr(track, name)[number].tolist() for name in ("body", "face", "hands")}
    rendered = page.evaluate(DRAW, {**landmarks, "measures": measures.to_json()})
    pose, surface = (np.array(rendered[name], np.uint8).reshape(size, size, -1) for name in ("pose", "surface"))
    away = np.abs(pose[..., :3].astype(int) - expected.pose).max(axis=-1)
    assert (expected.pose > 0).any(axis=-1).mean() > 0.2 and (away > 4).mean() < 0.01 and (away > 32).mean() < 0.001
    assert (surface[..., 0] != expected.surface[..., 0]).mean() < 0.002
    same = surface[..., 0] == expected.surface[..., 0]
    place = np.abs(surface[..., 1:].astype(int) - expected.surface[..., 1:])
    assert (np.minimum(place, 256 - place).max(axis=-1)[same] > 2).mean() < 0.005


LOOK_UP = """async ({tables, surface, side}) => {
  const { makeLookUp } = await import("/look_up.js");
  for (const name in tables) tables[name] = Int32Array.from(tables[name]);
  return Array.from(makeLookUp(tables, side, 1, 12)(Uint8Array.from(surface)));
}"""


def test_large_texels_are_looked_up_as_in_python(drawn):
  """With 4 x 4 pixels for each texel, whether neighbors lie across an occlusion depends on the texels' own size."""
  side, page = 256, drawn[2]
  y, x = np.mgrid[:side, :side]
  surface = np.stack([np.full((side, side), 1), x, y], axis=-1).astype(np.uint8)
  surface[:, 150:, 1] = np.minimum(surface[:, 150:, 1].astype(int) + 24, 255)  # an occlusion
  picture = np.stack([(5 * x + y) % 256, (x * y) % 256, (x + 7 * y) % 256], axis=-1).astype(np.uint8)
  frame = FilmFrame(picture, surface, np.full((side, side), 255, np.uint8), np.full((5, 2), np.nan, np.float32))
  charts = (("none", False), ("sheet", False))
  texture = gather(([frame] * 5).__getitem__, plan_blocks([0] * 5, 4), charts, 1).texture()
  tables, target = look_up_tables(texture, 1), np.roll(surface, (3, 5), axis=(0, 1))
  expected = np.rint(np.asarray(look_up(tables, jnp.asarray(target[None])))[0] * 255).astype(np.uint8)
  given = {name: array.ravel().tolist() for name, array in web_tables(tables).items()}
  found = page.evaluate(LOOK_UP, {"tables": given, "surface": target.ravel().tolist(), "side": side})
  np.testing.assert_array_equal(np.array(found, np.uint8).reshape(side, side, 12), expected)


def test_camera_tracking_agrees_with_python(drawn):
  """Measures and retargeting are those of landmarks/; smoothing is not, since it looks ahead in Python."""
  size, track, page = drawn
  square = CropRect.square(0, 0, size, size)
  driver = measure(track, square)
  target = dataclasses.replace(driver, place=(0.45, 0.5), shoulders=0.8 * driver.shoulders, neck=1.3 * driver.neck)
  fitted = retarget(track, square, driver, target)
  points = [{name: getattr(track, name)[i].tolist() for name in ("body", "face", "hands")} for i in range(len(track))]
  found = page.evaluate(
    FOLLOW, {"points": points, "target": target.to_json(), "driver": driver.to_json(), "size": size}
  )
  for name in ("body", "face", "hands"):
    np.testing.assert_allclose([frame[name] for frame in found["mapped"]], getattr(fitted[0], name), atol=2e-3)
  assert page.evaluate("tracking.scales(asked.driver, asked.driver)") is None
  measured = BodyMeasures.from_json(found["measured"])
  for name in ("shoulders", "neck", "torso", "hips", "palm"):
    np.testing.assert_allclose(getattr(measured, name), getattr(driver, name), rtol=0.02)
  still = found["followed"]  # the same frame repeated, with one hand lost
  np.testing.assert_allclose(still[0]["body"], still[-1]["body"], atol=1e-6)
  held, relaxed = (np.array(still[i]["hands"][0]) for i in (4, -1))
  np.testing.assert_allclose(held, still[0]["hands"][0], atol=1e-6)
  assert np.abs(relaxed - held).max() > 1 and np.isfinite(relaxed).all()


def test_plain_server_works_and_a_broken_page_says_so(browser, tiny, tmp_path):
  person, film_folder = tiny
  motions = [NamedMotion("<b>ana</b>", read_motion(film_folder, frames=2))]
  write_web(tmp_path / "page", person.body, motions, read_reference(film_folder), RUNTIME)
  (tmp_path / "other").mkdir()
  (tmp_path / "other/file").write_text("other")
  with pytest.raises(UserError, match="which was not written by this command"):
    write_web(tmp_path / "other", person.body, motions, read_reference(film_folder), RUNTIME)
  port = chromium.free_port()
  command = [sys.executable, "-m", "http.server", str(port), "--bind=127.0.0.1", f"--directory={tmp_path / 'page'}"]
  server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  try:
    time.sleep(2)
    page = opened(browser, f"http://127.0.0.1:{port}/")
    assert "1 thread" in page.inner_text("#about")
    assert page.inner_text("#motions") == "<b>ana</b>"  # as text
    assert asked(page, "frame", 1).shape == (32 * 32 * 4,)
    (tmp_path / "page/frame.onnx").unlink()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_function(READY)
    assert page.inner_text("#what") == "frame.onnx is missing (404)"
  finally:
    server.kill()
    server.wait()
