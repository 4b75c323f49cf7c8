"""What stands before Gradio: every request comes through here, and few are let in.

A request must come from the page itself (origins.py), from a browser that opened it (owners.py), and go to one of the
places that the page needs. Uploads are taken here and not by Gradio: what reaches Gradio of a file is the token that
its visitor has for it (intake.py), and no path.
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
from anchor_jax.app.access.multipart import Patience, TooSlow, receive_files
from anchor_jax.app.access.origins import Origins
from anchor_jax.app.access.owners import Gate, cookie_header, cookies_of
from anchor_jax.core.errors import UserError

# The places of Gradio that the page needs: for everybody, and for those who have opened it.
_OPEN = re.compile(
  r"/|/(favicon\.ico|theme\.css|robots\.txt|manifest\.json)|/(assets|static)/[\w@.-]+(/[\w@.-]+)*", re.ASCII
)
_PASS = re.compile(r"/gradio_api/(queue/data|startup-events|heartbeat/\w+)|/media/\w+/\w+(/live)?", re.ASCII)
_JOIN, _UPLOAD, _PROGRESS, _FILE = (
  f"/gradio_api/{name}" for name in ("queue/join", "upload", "upload_progress", "file=")
)
_LARGEST = 2**18  # bytes of what a button sends
_SAFE = [
  (b"referrer-policy", b"no-referrer"),
  (b"x-frame-options", b"DENY"),
  (b"x-content-type-options", b"nosniff"),
  (b"cross-origin-resource-policy", b"same-origin"),
]
_FILMS = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv": "video/x-matroska"}
_NAP = 0.1  # seconds between two looks at an upload that arrives
_TRIED = 50  # looks at one that has not begun
_RELOAD = "load this page again: it does not know this browser (any more)"
_BROKEN = "this went wrong unexpectedly; who runs this page finds the reason in its log"


class Refused(Exception):
  """A request that is not let in: status and what to say."""

  def __init__(self, status: int, why: str):
    super().__init__(why)
    self.status, self.why = status, why


class Door:
  """The page's application (ASGI): lets requests in to the one behind it, or answers them itself."""

  def __init__(self, app: Any, gate: Gate, origins: Origins, intake: Intake):
    """Takes the application behind it, who decides who a browser is and what is the page's own, and the uploads."""
    self._app, self._gate, self._origins, self._intake = app, gate, origins, intake
    self._coming: dict[tuple[str, str], _Progress] = {}

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request."""
    if scope["type"] == "lifespan":
      await self._app(scope, receive, send)
      return
    if scope["type"] != "http":
      await send({"type": "websocket.close", "code": 1008})
      return
    begun = False

    async def sent(message: Any) -> None:
      nonlocal begun
      if message["type"] == "http.response.start":
        begun = True
        message = {**message, "headers": [*message["headers"], *_SAFE]}
      await send(message)

    try:
      await self._answer(scope, receive, sent)
    except Refused as refused:
      await _told(sent, scope["path"], refused.status, refused.why)
    except Exception:
      logging.getLogger(__name__).exception("%s %s", scope["method"], scope["path"])
      if not begun:
        await _told(sent, scope["path"], 500, _BROKEN)

  async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    method, path, cookies = scope["method"], scope["path"], cookies_of(headers.get("cookie", ""))
    if why := self._origins.refusal(method, path, headers):
      raise Refused(403, why)
    looks = method in ("GET", "HEAD")
    if looks and _OPEN.fullmatch(path) and ".." not in path:
      await (self._page(scope, receive, send, cookies) if path == "/" else self._app(scope, receive, send))
      return
    mine = (looks and (path == _PROGRESS or path.startswith(_FILE))) or (method == "POST" and path in (_JOIN, _UPLOAD))
    if not (mine or (looks and _PASS.fullmatch(path))):
      raise Refused(404, "there is nothing here")
    owner = self._gate.owner(cookies)
    if owner is None or not self._gate.has_pass(cookies):
      raise Refused(404 if looks else 403, _RELOAD)  # the answer does not reveal whether the file exists
    if not mine:
      await self._app(scope, receive, send)
    elif path == _JOIN:
      await self._join(scope, receive, send)
    elif path == _UPLOAD:
      await self._upload(scope, headers, receive, send, owner)
    elif path == _PROGRESS:
      await _stream(send, self._progress((owner, _query(scope, "upload_id"))))
    else:
      await self._file(scope, receive, send, owner, path.removeprefix(_FILE))

  async def _page(self, scope: Any, receive: Any, send: Any, cookies: dict[str, str]) -> None:
    """The page itself: a browser without a token gets one, and the one that follows the printed link this machine's."""
    given = _query(scope, "owner")
    token = self._gate.new_cookie(cookies, given) if scope["method"] == "GET" else None
    kept = self._gate.pass_header(cookies, token)
    more = [] if token is None else [(b"set-cookie", cookie_header(token).encode())]
    more += [] if kept is None else [(b"set-cookie", kept.encode())]
    if token is not None and given == token:  # the token does not stay in the address
      await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/"), *more]})
      await send({"type": "http.response.body", "body": b""})
      return

    async def with_cookies(message: Any) -> None:
      if message["type"] == "http.response.start":
        message = {**message, "headers": [*message["headers"], *more]}
      await send(message)

    await self._app({**scope, "query_string": b""}, receive, with_cookies)  # Gradio knows queries that read files

  async def _join(self, scope: Any, receive: Any, send: Any) -> None:
    """What a button sends: files in it become their tokens."""
    patience, body, more = Patience(receive), b"", True
    try:
      while more:
        data, more = await patience.piece()
        body += data
        if len(body) > _LARGEST:
          raise Refused(413, "this is too much for a press of a button")
      body = json.dumps(without_files(json.loads(body))).encode()
    except TooSlow as error:
      raise Refused(408, str(error)) from None
    except (ValueError, RecursionError, UserError):
      raise Refused(400, "this is nothing that the page sends") from None
    given = [pair for pair in scope["headers"] if pair[0].lower() not in (b"content-length", b"transfer-encoding")]
    await self._app(
      {**scope, "headers": [*given, (b"content-length", str(len(body)).encode())]}, _replayed(body, receive), send
    )

  async def _upload(self, scope: Any, headers: dict[str, str], receive: Any, send: Any, owner: str) -> None:
    key = owner, _query(scope, "upload_id")
    progress = self._coming[key] = _Progress()
    try:
      with self._intake.receiving(owner) as batch:
        await receive_files(headers.get("content-type", ""), Patience(receive), batch, progress.add)
      answer = json.dumps([upload.token for upload in batch.files]).encode()
    except TooSlow as error:
      raise Refused(408, str(error)) from None
    except UserError as error:
      raise Refused(413, str(error)) from None
    finally:
      progress.done = True
      self._coming.pop(key, None)
    await _body(send, 200, b"application/json", answer)

  async def _progress(self, key: tuple[str, str]) -> AsyncIterator[Any]:
    """How far an upload is, as Gradio's page wants to know it."""
    for _ in range(_TRIED):
      if key in self._coming:
        break
      await asyncio.sleep(_NAP)
    else:
      return
    progress = self._coming[key]
    while not progress.done:
      for name, count in progress.taken():
        yield {"msg": "update", "orig_name": name, "chunk_size": count}
      await asyncio.sleep(_NAP)
    yield {"msg": "done"}

  async def _file(self, scope: Any, receive: Any, send: Any, owner: str, token: str) -> None:
    """An upload, for its own visitor to look at."""
    try:
      upload: Upload = self._intake.find(owner, token)
      upload.open().close()
    except UserError as error:
      raise Refused(404, str(error)) from None
    responses: Any = importlib.import_module("starlette.responses")
    kind = _FILMS.get(os.path.splitext(upload.name)[1].lower(), "application/octet-stream")
    quiet = {"Cache-Control": "private, no-store", "Content-Security-Policy": "sandbox; default-src 'none'"}
    await responses.FileResponse(upload.path, media_type=kind, headers=quiet)(scope, receive, send)


class _Progress:
  """Bytes that arrived of an upload's files and were not reported yet."""

  def __init__(self):
    self.done = False
    self._bytes: dict[str, int] = {}

  def add(self, name: str, count: int) -> None:
    self._bytes[name] = self._bytes.get(name, 0) + count

  def taken(self) -> list[tuple[str, int]]:
    taken, self._bytes = self._bytes, {}
    return list(taken.items())


def without_files(value: Any) -> Any:
  """Returns a value of JSON with each file in it (what has a path) replaced by its path, as text.

  Gradio reads, copies and fetches what such a path names; as text it is a token, which the intake knows or does not.
  """
  if isinstance(value, list):
    return [without_files(item) for item in value]
  if isinstance(value, dict):
    return str(value["path"]) if "path" in value else {name: without_files(item) for name, item in value.items()}
  return value


def _query(scope: Any, name: str) -> str:
  return parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[0]


def _replayed(body: bytes, receive: Any) -> Any:
  """A body that was read already, once; after it, what comes."""
  left = [{"type": "http.request", "body": body, "more_body": False}]

  async def next_message() -> Any:
    return left.pop() if left else await receive()

  return next_message


async def _told(send: Any, path: str, status: int, why: str) -> None:
  """Answers with a sentence, in the way in which Gradio's page shows it."""
  kind, body = b"text/plain; charset=utf-8", why.encode()
  if path == _JOIN:
    kind, body = b"application/json", json.dumps({"detail": why}).encode()
  await _body(send, status, kind, body, [(b"connection", b"close")])


async def _body(
  send: Any, status: int, kind: bytes, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
  headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
  await send({"type": "http.response.start", "status": status, "headers": [*headers, *(more or [])]})
  await send({"type": "http.response.body", "body": body})


async def _stream(send: Any, events: AsyncIterator[Any]) -> None:
  """Sends events one after another (server-sent events)."""
  headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
  await send({"type": "http.response.start", "status": 200, "headers": headers})
  async for event in events:
    data = f"data: {json.dumps(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})
  await send({"type": "http.response.body", "body": b""})
