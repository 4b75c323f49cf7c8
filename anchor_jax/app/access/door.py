"""Filters every request before it reaches Gradio.

A request must come from the page itself (origins.py) and from a browser that opened it (owners.py), and go to a route
that the page needs. Uploads are received here and not by Gradio: Gradio only sees the visitor's token for a file
(intake.py), never a path.
"""

import asyncio
import importlib
import json
import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

from anchor_jax.app.access.intake import Intake, Upload
from anchor_jax.app.access.multipart import PacedBody, TooSlow, receive_files
from anchor_jax.app.access.origins import Origins
from anchor_jax.app.access.owners import Gate, cookie_header, cookies_of
from anchor_jax.core.errors import UserError

# Gradio's routes that the page needs: public ones, and those that require the pass.
_OPEN = re.compile(
  r"/|/(favicon\.ico|theme\.css|robots\.txt|manifest\.json)|/(assets|static)/[\w@.-]+(/[\w@.-]+)*", re.ASCII
)
_PASS = re.compile(r"/gradio_api/(queue/data|startup-events|heartbeat/\w+)|/media/\w+/\w+(/live)?", re.ASCII)
_JOIN, _UPLOAD, _PROGRESS, _FILE = (
  f"/gradio_api/{name}" for name in ("queue/join", "upload", "upload_progress", "file=")
)
_MAX_EVENT = 2**18  # bytes that a button may send
_SECURITY_HEADERS = [
  (b"referrer-policy", b"no-referrer"),
  (b"x-frame-options", b"DENY"),
  (b"x-content-type-options", b"nosniff"),
  (b"cross-origin-resource-policy", b"same-origin"),
]
_FILMS = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv": "video/x-matroska"}
_POLL = 0.1  # seconds between checks on an upload's progress
_MAX_POLLS = 50  # for an upload that has not started
_RELOAD = "reload this page: it does not know this browser (anymore)"
_BROKEN = "something went wrong unexpectedly; the page's operator finds the reason in its log"


class Refused(Exception):
  """A refused request, with the status and message to answer."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status, self.message = status, message


class Door:
  """The page's ASGI application: answers requests itself or passes them on to the application behind it."""

  def __init__(self, app: Any, gate: Gate, origins: Origins, intake: Intake):
    """Takes the application behind it, the objects that identify browsers and check origins, and the uploads."""
    self._app, self._gate, self._origins, self._intake = app, gate, origins, intake
    self._uploads: dict[tuple[str, str], _Progress] = {}

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request."""
    if scope["type"] == "lifespan":
      await self._app(scope, receive, send)
      return
    if scope["type"] != "http":
      await send({"type": "websocket.close", "code": 1008})
      return
    started = False

    async def send_safely(message: Any) -> None:
      nonlocal started
      if message["type"] == "http.response.start":
        started = True
        message = {**message, "headers": [*message["headers"], *_SECURITY_HEADERS]}
      await send(message)

    try:
      await self._answer(scope, receive, send_safely)
    except Refused as refused:
      await _send_text(send_safely, scope["path"], refused.status, refused.message)
    except Exception:
      logging.getLogger(__name__).exception("%s %s", scope["method"], scope["path"])
      if not started:
        await _send_text(send_safely, scope["path"], 500, _BROKEN)

  async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    method, path, cookies = scope["method"], scope["path"], cookies_of(headers.get("cookie", ""))
    if message := self._origins.refusal(method, path, headers):
      raise Refused(403, message)
    reads = method in ("GET", "HEAD")
    if reads and _OPEN.fullmatch(path) and ".." not in path:
      await (self._page(scope, receive, send, cookies) if path == "/" else self._app(scope, receive, send))
      return
    own = (reads and (path == _PROGRESS or path.startswith(_FILE))) or (method == "POST" and path in (_JOIN, _UPLOAD))
    if not (own or (reads and _PASS.fullmatch(path))):
      raise Refused(404, "there is nothing here")
    owner = self._gate.owner(cookies)
    if owner is None or not self._gate.has_pass(cookies):
      raise Refused(404 if reads else 403, _RELOAD)  # does not reveal whether a file exists
    if not own:
      await self._app(scope, receive, send)
    elif path == _JOIN:
      await self._join(scope, receive, send)
    elif path == _UPLOAD:
      await self._upload(scope, headers, receive, send, owner)
    elif path == _PROGRESS:
      await _send_events(send, self._progress((owner, _query(scope, "upload_id"))))
    else:
      await self._file(scope, receive, send, owner, path.removeprefix(_FILE))

  async def _page(self, scope: Any, receive: Any, send: Any, cookies: dict[str, str]) -> None:
    """Answers with the page; sets the token of a new browser, or this machine's for the printed link."""
    linked = _query(scope, "owner")
    token = self._gate.new_cookie(cookies, linked) if scope["method"] == "GET" else None
    pass_header = self._gate.pass_header(cookies, token)
    more = [] if token is None else [(b"set-cookie", cookie_header(token).encode())]
    more += [] if pass_header is None else [(b"set-cookie", pass_header.encode())]
    if token is not None and linked == token:  # redirect, to remove the token from the address bar
      await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/"), *more]})
      await send({"type": "http.response.body", "body": b""})
      return

    async def with_cookies(message: Any) -> None:
      if message["type"] == "http.response.start":
        message = {**message, "headers": [*message["headers"], *more]}
      await send(message)

    await self._app({**scope, "query_string": b""}, receive, with_cookies)  # some of Gradio's queries read files

  async def _join(self, scope: Any, receive: Any, send: Any) -> None:
    """Passes a button's event on to Gradio, with files replaced by their tokens."""
    request, body, more = PacedBody(receive), b"", True
    try:
      while more:
        data, more = await request.piece()
        body += data
        if len(body) > _MAX_EVENT:
          raise Refused(413, "this is too much data for a button")
      body = json.dumps(without_files(json.loads(body))).encode()
    except TooSlow as error:
      raise Refused(408, str(error)) from None
    except (ValueError, RecursionError, UserError):
      raise Refused(400, "this is not a request that the page sends") from None
    headers = [pair for pair in scope["headers"] if pair[0].lower() not in (b"content-length", b"transfer-encoding")]
    headers.append((b"content-length", str(len(body)).encode()))
    await self._app({**scope, "headers": headers}, _replayed(body, receive), send)

  async def _upload(self, scope: Any, headers: dict[str, str], receive: Any, send: Any, owner: str) -> None:
    key = owner, _query(scope, "upload_id")
    progress = self._uploads[key] = _Progress()
    try:
      with self._intake.receiving(owner) as batch:
        await receive_files(headers.get("content-type", ""), PacedBody(receive), batch, progress.add)
      answer = json.dumps([upload.token for upload in batch.files]).encode()
    except TooSlow as error:
      raise Refused(408, str(error)) from None
    except UserError as error:
      raise Refused(413, str(error)) from None
    finally:
      progress.done = True
      self._uploads.pop(key, None)
    await _send_body(send, 200, b"application/json", answer)

  async def _progress(self, key: tuple[str, str]) -> AsyncIterator[Any]:
    """Progress events of an upload, in the format of Gradio's page."""
    for _ in range(_MAX_POLLS):
      if key in self._uploads:
        break
      await asyncio.sleep(_POLL)
    else:
      return
    progress = self._uploads[key]
    while not progress.done:
      for name, count in progress.pop():
        yield {"msg": "update", "orig_name": name, "chunk_size": count}
      await asyncio.sleep(_POLL)
    yield {"msg": "done"}

  async def _file(self, scope: Any, receive: Any, send: Any, owner: str, token: str) -> None:
    """Sends an upload back to its own visitor."""
    try:
      upload: Upload = self._intake.find(owner, token)
      upload.open().close()
    except UserError as error:
      raise Refused(404, str(error)) from None
    responses: Any = importlib.import_module("starlette.responses")
    media_type = _FILMS.get(os.path.splitext(upload.name)[1].lower(), "application/octet-stream")
    headers = {"Cache-Control": "private, no-store", "Content-Security-Policy": "sandbox; default-src 'none'"}
    await responses.FileResponse(upload.path, media_type=media_type, headers=headers)(scope, receive, send)


class _Progress:
  """Received bytes of an upload's files that are not reported yet."""

  def __init__(self):
    self.done = False
    self._bytes: dict[str, int] = {}

  def add(self, name: str, count: int) -> None:
    self._bytes[name] = self._bytes.get(name, 0) + count

  def pop(self) -> list[tuple[str, int]]:
    unreported, self._bytes = self._bytes, {}
    return list(unreported.items())


def without_files(value: Any) -> Any:
  """Returns a JSON value with each file object (one with a path) replaced by its path as text.

  Gradio would read, copy or fetch whatever such a path names. As text it is only a token for the intake to look up.
  """
  if isinstance(value, list):
    return [without_files(item) for item in value]
  if isinstance(value, dict):
    return str(value["path"]) if "path" in value else {name: without_files(item) for name, item in value.items()}
  return value


def _query(scope: Any, name: str) -> str:
  return parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[0]


def _replayed(body: bytes, receive: Any) -> Any:
  """An ASGI `receive` that returns an already read body first."""
  pending = [{"type": "http.request", "body": body, "more_body": False}]

  async def next_message() -> Any:
    return pending.pop() if pending else await receive()

  return next_message


async def _send_text(send: Any, path: str, status: int, message: str) -> None:
  """Answers with a message, in the format that Gradio's page displays."""
  content_type, body = b"text/plain; charset=utf-8", message.encode()
  if path == _JOIN:
    content_type, body = b"application/json", json.dumps({"detail": message}).encode()
  await _send_body(send, status, content_type, body, [(b"connection", b"close")])


async def _send_body(
  send: Any, status: int, content_type: bytes, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
  headers = [
    (b"content-type", content_type),
    (b"content-length", str(len(body)).encode()),
    (b"cache-control", b"no-store"),
  ]
  await send({"type": "http.response.start", "status": status, "headers": [*headers, *(more or [])]})
  await send({"type": "http.response.body", "body": body})


async def _send_events(send: Any, events: AsyncIterator[Any]) -> None:
  """Sends server-sent events."""
  headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
  await send({"type": "http.response.start", "status": 200, "headers": headers})
  async for event in events:
    data = f"data: {json.dumps(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})
  await send({"type": "http.response.body", "body": b""})
