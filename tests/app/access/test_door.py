"""The filter in front of Gradio: few requests pass, files become tokens, and slow requests time out."""

import asyncio
import json

import pytest

from anchor_jax.app.access import door as module
from anchor_jax.app.access.door import Door, without_files
from anchor_jax.app.access.intake import Intake
from anchor_jax.app.access.marks import marked_folder
from anchor_jax.app.access.multipart import PacedBody, TooSlow
from anchor_jax.app.access.origins import Origins
from anchor_jax.app.access.owners import Gate
from anchor_jax.app.access.quota import Disk

HOST = {"host": "127.0.0.1:7860"}


class Behind:
  """Stand-in for Gradio that records requests."""

  def __init__(self):
    self.seen, self.fails = [], False

  async def __call__(self, scope, receive, send):
    if self.fails:
      raise RuntimeError("a secret /path")
    body = (await receive())["body"] if scope["method"] == "POST" else b""
    self.seen.append((scope["method"], scope["path"], scope["query_string"], body))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"behind"})


@pytest.fixture
def page(tmp_path):
  """The door of a local page, with its parts."""
  gate = Gate(tmp_path, False)
  intake = Intake(marked_folder(tmp_path, "uploads")[0], 1, Disk(tmp_path, 1))
  behind = Behind()
  return Door(behind, gate, Origins("127.0.0.1", False), intake), gate, behind, intake


def ask(door, method, path, headers=HOST, body=(b"",), query=b""):
  """Sends a request; returns the status, headers and body of the response."""
  pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
  pieces[-1]["more_body"] = False
  answer = []

  async def receive():
    return pieces.pop(0) if pieces else await asyncio.sleep(60)

  async def send(message):
    answer.append(message)

  raw = [(name.encode(), value.encode()) for name, value in headers.items()]
  scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": raw}
  asyncio.run(door(scope, receive, send))
  start, *rest = answer
  return start["status"], start["headers"], b"".join(message["body"] for message in rest)


def known(gate):
  return HOST | {"cookie": f"odd; other=1; {gate.pass_header({}, None).partition(';')[0]}"}


def test_the_page_sets_the_pass_that_other_routes_require(page):
  door, gate, behind, _ = page
  status, headers, _ = ask(door, "GET", "/", query=b"deep_link=../../x")
  cookies = [value.decode() for name, value in headers if name == b"set-cookie"]
  assert status == 200 and len(cookies) == 1 and "SameSite=Strict" in cookies[0] and "HttpOnly" in cookies[0]
  assert behind.seen == [("GET", "/", b"", b"")]
  assert gate.local_token not in cookies[0]
  for method, path in (("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"), ("GET", "/media/a/b")):
    for headers in (HOST, HOST | {"cookie": "anchor_page_0=x"}):
      status, _, message = ask(door, method, path, headers)
      assert status == {"POST": 403, "GET": 404}[method] and b"reload this page" in message
  assert ask(door, "GET", "/media/a/b", known(gate))[0] == 200
  assert not [name for name, _ in ask(door, "GET", "/", known(gate))[1] if name == b"set-cookie"]


@pytest.mark.parametrize(
  "method,path",
  [
    ("GET", "/config"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/file/x"),
    ("GET", "/gradio_api/proxy=http://127.0.0.1:1/"),
    ("GET", "/gradio_api/stream/a/b/c/playlist.m3u8"),
    ("POST", "/gradio_api/stream/a"),
    ("POST", "/gradio_api/call/called"),
    ("POST", "/gradio_api/call/v2/called"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/vibe-edit/"),
    ("POST", "/gradio_api/queue/join/"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/"),
    ("PUT", "/gradio_api/upload"),
    ("DELETE", "/media/a/b"),
    ("OPTIONS", "/gradio_api/upload"),
    ("GET", "/gradio_api/deep_link"),
    ("GET", "/static/../../etc/passwd"),
    ("GET", "/assets//etc/passwd"),
    ("GET", "/assets/a\\..\\b"),
    ("GET", "/media/../token/x"),
    ("GET", "/media/a/b\n"),
    ("GET", "/monitoring"),
    ("GET", "/login"),
  ],
)
def test_all_other_routes_are_refused(page, method, path):
  door, gate, behind, _ = page
  assert ask(door, method, path, known(gate))[0] in (403, 404) and not behind.seen


def test_files_in_events_become_tokens(page):
  door, gate, behind, _ = page
  file = {"path": "/dev/zero", "url": "http://127.0.0.1/x", "meta": {"_type": "gradio.FileData"}, "is_stream": False}
  sent = {
    "data": ["a", [file, {"value": file}], {"x": {"path": ["y"]}}],
    "event_data": {"act": "cancel"},
    "fn_index": 3,
  }
  status, _, _ = ask(door, "POST", "/gradio_api/queue/join", known(gate), [json.dumps(sent).encode()])
  assert status == 200
  arrived = json.loads(behind.seen[0][3])
  assert arrived["data"] == ["a", ["/dev/zero", {"value": "/dev/zero"}], {"x": "['y']"}]
  assert (arrived["event_data"], arrived["fn_index"]) == (sent["event_data"], 3)
  assert "path" not in json.dumps(without_files([{"path": {"path": 1}}])).replace("'path'", "")


@pytest.mark.parametrize(
  "body,status",
  [([b"no JSON"], 400), ([b"[" * 100_000], 400), ([b"\xff"], 400), ([b"x" * 2**16] * 5, 413), ([b" " * 2**20], 413)],
)
def test_malformed_and_oversized_events_are_refused(page, body, status):
  door, gate, behind, _ = page
  got, _, message = ask(door, "POST", "/gradio_api/queue/join", known(gate), body)
  assert got == status and json.loads(message)["detail"] and not behind.seen


def test_an_unexpected_failure_is_a_message_and_a_log_entry(page, caplog):
  door, gate, behind, _ = page
  behind.fails = True
  status, _, message = ask(door, "GET", "/media/a/b", known(gate))
  assert status == 500 and b"secret" not in message and b"log" in message
  assert "a secret /path" in caplog.text


def test_uploads_of_others_and_paths_are_not_found(page):
  door, gate, _, intake = page
  with intake.receiving("somebody else") as batch:
    batch.begin("a.mp4").write(b"film")
  assert ask(door, "GET", f"/gradio_api/file={batch.files[0].token}", known(gate))[0] == 404
  for path in ("/etc/passwd", "/dev/zero", "../token", "uploads/.of-the-page", batch.files[0].path):
    assert ask(door, "GET", f"/gradio_api/file={path}", known(gate))[0] == 404


def test_slow_requests_time_out(page, monkeypatch):
  async def never():
    await asyncio.sleep(60)

  async def trickle():
    await asyncio.sleep(0.01)
    return {"type": "http.request", "body": b"x", "more_body": True}

  async def all_of(receive):
    body = PacedBody(receive, slack=0.1, min_rate=1000)
    for _ in range(1000):
      await body.piece()

  for receive in (never, trickle):
    with pytest.raises(TooSlow):
      asyncio.run(all_of(receive))
  door, gate, _, _ = page
  monkeypatch.setattr(module, "PacedBody", lambda _: PacedBody(never, slack=0.05))
  assert ask(door, "POST", "/gradio_api/queue/join", known(gate))[0] == 408


def test_on_a_network_a_pass_is_bound_to_its_token(tmp_path):
  gate = Gate(tmp_path, True, 7860)
  ana, bea = gate.new_cookie({}, ""), gate.new_cookie({}, "")
  value = gate.pass_header({}, ana).partition(";")[0].partition("=")[2]
  assert gate.has_pass({"anchor_owner": ana, "anchor_page_7860": value})
  assert not gate.has_pass({"anchor_owner": bea, "anchor_page_7860": value})
  assert not gate.has_pass({"anchor_page_7860": value}) and not gate.has_pass({"anchor_owner": ana})
