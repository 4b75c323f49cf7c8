"""The page over HTTP, with Gradio but without a browser: what visitors can't do."""

import concurrent.futures
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from chromium import free_port
from people import make_posed_frames
from visitors import Served, Visitor, file_of

from anchor_jax.app.access.marks import MARK
from anchor_jax.app.access.people import STUDIO
from anchor_jax.landmarks.sidecar import write_posed_video

pytestmark = pytest.mark.app
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def serve(tmp_path):
  started = []

  def start(**options):
    started.append(Served(tmp_path / "shop", **options))
    return started[-1]

  yield start
  for one in started:
    one.stop()


@pytest.fixture
def film(tmp_path):
  """A private film on this machine."""
  write_posed_video(tmp_path / "private/film.mp4", make_posed_frames(4), 10)
  return tmp_path / "private/film.mp4"


def parts_of(film):
  return {"film.mp4": film.read_bytes(), **{p.name: p.read_bytes() for p in film.with_suffix(".anchor").iterdir()}}


def add(visitor, tokens, label="Ana", consent=True):
  files = [file_of(token, name) for name, token in tokens.items()]
  return visitor.press("add", label, files, None, 128, "square", consent)


def test_no_path_from_a_browser_reaches_a_file_of_the_server(serve, film, tmp_path):
  served = serve()
  visitor = Visitor(served)
  os.mkfifo(tmp_path / "pipe")
  copies = list((tmp_path / "shop").rglob("*.mp4"))
  for path in (
    str(film),
    "/dev/zero",
    str(tmp_path / "pipe"),
    "token",
    "../private/film.mp4",
    "http://127.0.0.1:1/a.mp4",
  ):
    file = file_of(path, url=f"http://127.0.0.1:{served.port}/gradio_api/file={path}")
    for motion in ([file], file, [[file]], {"root": [file]}):
      end, boxes = visitor.press("make", STUDIO, "upload", 1, [], motion, None)
      assert end["success"] and ("upload it again" in boxes or "upload a film first" in boxes)
    end, boxes = visitor.press("make", STUDIO, "upload", 1, [], None, file)  # as the camera sends it
    assert end["success"] and "upload it again" in boxes
    for values in ((file, "upload", 1, [], None, None), (STUDIO, file, file, file, None, None)):
      visitor.press("make", *values)
    assert add(visitor, {"film.mp4": path})[0]["success"]
    for address in (
      f"/gradio_api/file={path}",
      f"/gradio_api/file/{path}",
      f"/gradio_api/proxy={path}",
      f"/static/{path}",
    ):
      assert visitor.client.get(address).status_code in (403, 404)
  assert [path.name for path in (tmp_path / "shop/uploads").iterdir()] == [MARK]
  assert list((tmp_path / "shop").rglob("*.mp4")) == copies and not served.shop.jobs.queue()
  assert visitor.client.get("/").status_code == 200


def test_gradios_other_routes_are_closed(serve, film):
  visitor = Visitor(serve())
  file = file_of(str(film))
  body = {"data": [STUDIO, "upload", 1, [], [file], None], "fn_index": 0, "session_hash": "x", "api_name": "called"}
  for way in ("call/called", "call/v2/called", "run/called", "api/called", "run/predict", "component_server", "reset"):
    assert visitor.client.post(f"/gradio_api/{way}", json=body).status_code == 404
  for way in ("info", "openapi.json", "queue/status", "app_id", "token", "deep_link", "runs", "profiling/traces"):
    assert visitor.client.get(f"/gradio_api/{way}").status_code == 404
  for way in ("process_recording", "vibe-edit/", "stream/x", "stream/x/close", "cancel", "run-history/connect"):
    assert visitor.client.post(f"/gradio_api/{way}", files={"file": ("a.mp4", b"x")}).status_code == 404


def test_gradio_itself_also_refuses_files(serve, film, monkeypatch, tmp_path):
  from anchor_jax.app.access import door

  visitor = Visitor(serve())
  monkeypatch.setattr(door, "without_files", lambda value: value)
  end, _ = visitor.press("make", STUDIO, "upload", 1, [], [file_of(str(film))], None)
  assert not end["success"] and not list((tmp_path / "shop").rglob("film*.mp4"))


def test_equal_uploads_of_two_visitors_stay_separate_and_reusable(serve, film):
  served = serve(network=True)
  ana, bea = Visitor(served), Visitor(served)
  tokens = [{name: who.token(name, data) for name, data in parts_of(film).items()} for who in (ana, bea)]
  assert not set(tokens[0].values()) & set(tokens[1].values())
  _, boxes = add(bea, tokens[0])
  assert "upload it again" in boxes
  assert ana.client.get(f"/gradio_api/file={tokens[0]['film.mp4']}").content == film.read_bytes()
  assert bea.client.get(f"/gradio_api/file={tokens[0]['film.mp4']}").status_code == 404
  _, boxes = add(ana, tokens[0], consent=False)
  assert "agrees" in boxes
  for who, own in zip((ana, ana, bea), (tokens[0], *tokens), strict=True):
    _, boxes = add(who, own)
    assert "was added: see Training" in boxes
  assert sorted(person.label for person in served.shop.people.everyone()) == ["Ana"] * 3 + ["Studio person"]


def test_a_camera_recording_needs_no_external_program(serve, film, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  with av.open(str(tmp_path / "camera.webm"), "w") as video:
    stream = video.add_stream("libvpx", rate=30, width=64, height=64)
    for _ in range(30):
      video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
    video.mux(stream.encode(None))
  served = serve()
  visitor = Visitor(served)
  token = visitor.token("sample.webm", (tmp_path / "camera.webm").read_bytes())
  monkeypatch.setattr("anchor_jax.app.access.uploads.landmarks_installed", lambda: True)
  end, boxes = visitor.press("make", STUDIO, "upload", 1, [], None, file_of(token, "sample.webm"))
  assert end["success"] and not boxes
  (job,) = served.shop.jobs.queue()
  assert job.settings["motion"].endswith(".webm") and job.settings["frames"] == 30


def test_uploads_require_the_pass_and_the_pages_own_origin(serve):
  served = serve()
  own = f"http://127.0.0.1:{served.port}"
  stranger = Visitor(served, opens=False)
  assert stranger.upload("a.mp4", b"x").status_code == 403
  assert "reload this page" in stranger.upload("a.mp4", b"x").text
  visitor = Visitor(served)
  assert visitor.client.post("/gradio_api/upload", files={"files": ("a.mp4", b"x")}, headers={"origin": own}).is_success
  for headers in (
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site"},
    {"host": "evil.example"},
    {"host": f"evil.example:{served.port}", "origin": f"http://evil.example:{served.port}"},
  ):
    for method, place in (
      ("POST", "gradio_api/upload"),
      ("POST", "gradio_api/queue/join"),
      ("GET", "media/studio/found"),
    ):
      answer = visitor.client.request(method, f"/{place}", headers=headers)
      assert answer.status_code == 403 and "not" in answer.text
  answer = visitor.client.options(
    "/gradio_api/upload", headers={"origin": own, "access-control-request-method": "POST"}
  )
  assert answer.status_code == 404 and not [name for name in answer.headers if name.startswith("access-control")]


def test_an_upload_that_is_too_large_is_cut_off_early(serve, tmp_path):
  served = serve()
  visitor = Visitor(served)
  answer = visitor.upload("a.mp4", b"x" * 2_500_000)
  assert answer.status_code == 413 and "larger than 2 MB" in answer.text

  sent = 0
  with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.client.cookies.items())
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nCookie: %s\r\nContent-Length: 900000000\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    line.sendall(
      (head % (served.port, cookies) + "Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part).encode()
    )
    try:
      while sent < 200_000_000:
        sent += line.send(b"x" * 100_000)
    except OSError:
      pass
  assert sent < 100_000_000
  deadline = time.monotonic() + 10
  while [path.name for path in (tmp_path / "shop/uploads").iterdir()] != [MARK]:
    assert time.monotonic() < deadline
    time.sleep(0.05)


@pytest.mark.parametrize(
  "kind,body",
  [
    ("multipart/form-data; boundary=b", b"--b\r\nno header"),
    ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; filename="a.mp4"\r\n\r\nx'),
    ("multipart/form-data", b"--b"),
    ("multipart/form-data; boundary=" + "b" * 999, b"--b"),
    ("application/json", b"{}"),
    ("multipart/form-data; boundary=b", b"--b\r\n" + b"a" * 10_000),
    ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" * 100 + b"--b--\r\n"),
  ],
)
def test_damaged_uploads_are_refused_and_leave_no_files(serve, kind, body, tmp_path):
  visitor = Visitor(serve())
  answer = visitor.client.post("/gradio_api/upload", content=body, headers={"content-type": kind})
  assert answer.status_code == 413 and answer.text and "Error" not in answer.text
  assert [path.name for path in (tmp_path / "shop/uploads").iterdir()] == [MARK]


def test_odd_file_names_are_harmless(serve, film):
  visitor = Visitor(serve())
  for name in (
    "../../../etc/x.mp4",
    "a\r\nSet-Cookie: b=c.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "\u202egpj.mp4",
    "x" * 900 + ".mp4",
  ):
    token = visitor.token(name, b"no film")
    assert token.count("/") == 1 and ".." not in token and "<" not in token and token.isascii()
    shown = visitor.client.get(f"/gradio_api/file={token}")
    assert shown.status_code == 200 and "set-cookie" not in shown.headers
    assert shown.headers["content-type"] == "video/mp4" and shown.headers["x-content-type-options"] == "nosniff"
    _, boxes = add(visitor, {"film.mp4": token})
    assert "not a video" in boxes and "<img" not in boxes
  page = visitor.client.get(f"/gradio_api/file={visitor.token('a.html', b'<script>')}")
  assert (
    page.headers["content-type"] == "application/octet-stream" and "sandbox" in page.headers["content-security-policy"]
  )
  part = visitor.client.get(f"/gradio_api/file={token}", headers={"range": "bytes=3-5"})
  assert (part.status_code, part.content) == (206, b"fil")


def test_queue_people_and_disk_have_limits_over_all_cookies(serve, film, monkeypatch):
  from anchor_jax.app.access import people
  from anchor_jax.app.jobs import queue as jobs

  served = serve(network=True)
  monkeypatch.setattr(jobs, "MAX_QUEUED_IN_ALL", 3)
  for number in range(5):
    end, boxes = Visitor(served).press("example", f"Ana {number}", 128, "square")
    assert end["success"] and ("see Training" in boxes) == (number < 3)
  assert "the queue is full" in boxes and len(served.shop.jobs.queue()) == 3
  monkeypatch.setattr(jobs, "MAX_QUEUED_IN_ALL", 100)
  monkeypatch.setattr(people, "MAX_PEOPLE_IN_ALL", 5)
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    ends = list(pool.map(lambda number: Visitor(served).press("example", f"Bea {number}", 128, "square")[1], range(6)))
  assert sum("see Training" in boxes for boxes in ends) == 1 and len(served.shop.people.everyone()) == 5
  monkeypatch.setattr(people, "MAX_PEOPLE_IN_ALL", 100)
  served.shop.disk.add(10**12)
  visitor = Visitor(served)
  assert "GB" in visitor.upload("a.mp4", b"x").text and "GB" in visitor.press("example", "Cea", 128, "square")[1]


@pytest.mark.parametrize("value", [None, True, -1, 1e308, "x" * 1000, [], [[]], {}, {"a": 1}, "\u0000"], ids=str)
def test_arbitrary_input_ends_in_a_message(serve, value, caplog):
  visitor = Visitor(serve())
  for button in ("make", "train", "add", "example", "export", "delete"):
    end, _ = visitor.press(button, *[value] * visitor.inputs(button))
    assert end["success"], (button, end)
  end, _ = visitor.press("making", *[])
  assert end["success"] and visitor.client.get("/").status_code == 200


def test_an_unexpected_failure_is_a_message_and_a_log_entry(serve, monkeypatch, caplog):
  served = serve()
  visitor = Visitor(served)

  def fails(*_):
    raise RuntimeError("secret of /srv/x")

  monkeypatch.setattr(served.shop, "train", fails)
  end, boxes = visitor.press("train", STUDIO)
  assert end["success"] and "finds the reason in its log" in boxes and "secret" not in boxes
  assert "secret of /srv/x" in caplog.text


def test_damaged_records_are_reported_to_their_owner_and_the_operator(serve, tmp_path):
  first = serve(network=True)
  ana, bea = Visitor(first), Visitor(first)
  for who, label in ((ana, "Ana"), (bea, "Bea <b>")):
    assert "see Training" in who.press("example", label, 128, "square")[1]
  first.stop()
  (record,) = [path for path in (tmp_path / "shop/people").glob("*/person.json") if "Ana" in path.read_text()]
  record.write_text(record.read_text().replace("128", "-1"))

  second = serve(network=True)
  operator = Visitor(second)
  operator.client.get("/", params={"owner": second.gate.local_token})
  shown = []
  for visitor in (ana, bea, operator):
    returning = Visitor(second, opens=False)
    returning.client.cookies, returning.config = visitor.client.cookies, operator.config
    returning.client.get("/")
    shown.append(returning.look())
  assert ["Set aside" in text for text in shown] == [True, False, True]
  assert str(tmp_path) not in "".join(shown) and record.parent.name in shown[0] and "Bea <b>" in shown[1]
  assert record.exists()


def test_stopping_the_page_ends_the_running_job(tmp_path):
  command = [sys.executable, "-m", "anchor_jax.app", f"--folder={tmp_path}/shop", "--smoke", f"--port={free_port()}"]
  page = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  jobs = tmp_path / "shop/people/studio/jobs"
  deadline = time.monotonic() + 120
  while not [lock for lock in jobs.glob("*.lock") if lock.read_text()]:
    assert time.monotonic() < deadline and page.poll() is None
    time.sleep(0.05)
  (lock,) = jobs.glob("*.lock")
  job = int(lock.read_text())
  os.killpg(job, signal.SIGSTOP)  # or it may be done before the page is up
  assert "the page is at" in page.stdout.readline()
  page.terminate()
  os.killpg(job, signal.SIGCONT)
  assert page.wait(timeout=90) == 128 + signal.SIGTERM
  with pytest.raises(ProcessLookupError):
    os.kill(job, 0)
  assert '"waiting"' in next(jobs.glob("*.json")).read_text()
  page.stdout.close()


def test_a_taken_port_is_a_one_line_error(tmp_path):
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    command = [sys.executable, "-m", "anchor_jax.app", f"--folder={tmp_path}/shop", f"--port={port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert (
    done.returncode == 2 and done.stderr.startswith(f"error: --port={port} is taken") and done.stderr.count("\n") == 1
  )
