"""The web server: Gradio's page, the files of people for those who may see them, and who a browser is."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from anchor_jax.app.owners import Gate, cookie_header, cookies_of
from anchor_jax.app.page import Page
from anchor_jax.app.people import NotFound
from anchor_jax.app.style import CSS
from anchor_jax.app.workshop import Workshop

_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".html": "text/html", ".zip": "application/zip"}
_LOCAL = ["127.0.0.1", "localhost", "[::1]"]
# Our reports bring their style and pictures with them, and no script.
_HEADERS = {
  "Cache-Control": "private, no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; media-src 'self'",
}
_PIECE = 2**16
_NAP = 0.2  # seconds between two looks at a video that grows


def serve(shop: Workshop, host: str, port: int, network: bool) -> None:
  """Serves the page until it is stopped by a signal.

  Args:
    shop: the workshop, which works already.
    host, port: where to listen.
    network: whether other machines can reach it, so that browsers are told apart.
  """
  uvicorn: Any = importlib.import_module("uvicorn")
  gate = Gate(shop.folder, network)
  app = make_app(shop, gate)
  link = f"http://{host}:{port}/" + (f"?owner={gate.own}" if network else "")
  print(f"the page is at {link}", flush=True)
  if network:
    print("that link shows your own people; without ?owner=..., each browser has people of its own", flush=True)
  uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


def make_app(shop: Workshop, gate: Gate) -> Any:
  """Returns the web application: the page at /, files at /media."""
  fastapi: Any = importlib.import_module("fastapi")
  responses: Any = importlib.import_module("fastapi.responses")
  gradio: Any = importlib.import_module("gradio")
  app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

  def owner(request: Any) -> str:
    found = gate.owner(request.cookies)
    if found is None:
      raise fastapi.HTTPException(404)
    return found

  def media(request: Any, person: str, what: str, download: bool = False) -> Any:
    try:
      path = shop.file(owner(request), person, what)
    except NotFound:
      raise fastapi.HTTPException(404) from None
    name = f"synthetic_{what}{path.suffix}" if path.suffix == ".mp4" else path.name
    shown = {} if not download else {"filename": name}
    return responses.FileResponse(path, media_type=_KINDS[path.suffix], headers=_HEADERS, **shown)

  def live(request: Any, person: str, job: str) -> Any:
    try:
      partial, whole = shop.live(owner(request), person, job)
    except NotFound:
      raise fastapi.HTTPException(404) from None
    pieces = growing(partial, whole, lambda: shop.is_open(job))
    return responses.StreamingResponse(pieces, media_type="video/mp4", headers=_HEADERS)

  for function in (media, live):
    function.__annotations__["request"] = fastapi.Request
  app.get("/media/{person}/{what}")(media)
  app.get("/media/{person}/{job}/live")(live)
  if not gate.network:  # a page elsewhere that names this machine as its own host gets nothing
    hosts: Any = importlib.import_module("starlette.middleware.trustedhost")
    app.add_middleware(hosts.TrustedHostMiddleware, allowed_hosts=_LOCAL)
  app.add_middleware(Cookies, gate=gate)
  plain = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
  theme = gradio.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=plain, font_mono=["ui-monospace"])
  return gradio.mount_gradio_app(
    app, Page(shop, gate).blocks, path="/", theme=theme, css=CSS, show_error=False, ssr_mode=False, footer_links=[],
    max_file_size=shop.limits.megabytes * 10**6, mcp_server=False, run_history=False, enable_monitoring=False,
  )  # fmt: skip


async def growing(partial: Path, whole: Path, is_open: Callable[[], bool]) -> AsyncIterator[bytes]:
  """Yields a video while it is being written, so that a browser plays it as far as it is.

  Args:
    partial: the file that grows; it may not be there yet.
    whole: the file that it becomes.
    is_open: whether its job still waits or runs.
  """
  while not partial.exists():
    if whole.exists() or not is_open():
      break
    await asyncio.sleep(_NAP)
  try:
    file = partial.open("rb")
  except FileNotFoundError:
    if not whole.exists():
      return
    file = whole.open("rb")
  with file:
    while True:
      last = not is_open() or whole.exists()
      if data := file.read(_PIECE):
        yield data
      elif last or _replaced(file, partial):
        return
      else:
        await asyncio.sleep(_NAP)


def _replaced(file: Any, partial: Path) -> bool:
  """Whether another file has the name meanwhile: a job that went on wrote it anew."""
  try:
    return os.fstat(file.fileno()).st_ino != partial.stat().st_ino
  except FileNotFoundError:
    return False


class Cookies:
  """Gives a browser without a token one of its own, and this machine's to the one that follows the printed link."""

  def __init__(self, app: Any, gate: Gate):
    """Takes the application that answers, and who decides."""
    self._app, self._gate = app, gate

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request (ASGI)."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    headers = dict(scope["headers"])
    cookies = cookies_of(headers.get(b"cookie", b"").decode("latin-1"))
    given = parse_qs(scope["query_string"].decode("latin-1")).get("owner", [""])[0]
    page = scope["path"] == "/" and scope["method"] == "GET"
    token = self._gate.new_cookie(cookies, given) if page else None
    if token is not None and given == token:  # the token does not stay in the address
      told = [(b"location", b"/"), (b"set-cookie", cookie_header(token).encode())]
      await send({"type": "http.response.start", "status": 303, "headers": told})
      await send({"type": "http.response.body", "body": b""})
      return

    async def with_cookie(message: Any) -> None:
      if message["type"] == "http.response.start":
        more = [(b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY")]
        more += [] if token is None else [(b"set-cookie", cookie_header(token).encode())]
        message = {**message, "headers": [*message["headers"], *more]}
      await send(message)

    await self._app(scope, receive, with_cookie)
