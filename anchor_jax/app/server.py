"""The web server: Gradio's page and people's files, behind the door that filters requests."""

import asyncio
import contextlib
import errno
import importlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.app.access.door import Door
from anchor_jax.app.access.origins import Origins
from anchor_jax.app.access.owners import Gate
from anchor_jax.app.access.people import NotFound
from anchor_jax.app.jobs.workshop import Workshop
from anchor_jax.app.page import Page
from anchor_jax.app.style import CSS
from anchor_jax.core.errors import UserError, one_line

_MEDIA_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".html": "text/html", ".zip": "application/zip"}
# Our HTML reports have inline styles and pictures, and no scripts.
_HEADERS = {
  "Cache-Control": "private, no-store",
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; media-src 'self'",
}
_CHUNK = 2**16  # bytes
_POLL = 0.2  # seconds between reads of a growing video
_MAX_EVENTS = 256  # waiting in Gradio's queue
_MAX_SESSIONS = 1000  # with state in Gradio's memory


def listen(host: str, port: int) -> socket.socket:
  """Returns a listening socket.

  Raises:
    UserError: the port is taken, or there is no such address.
  """
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost has two
  except (OSError, UnicodeError):
    raise UserError(f"--host={one_line(host, 60)}: this machine has no such address") from None
  listener = socket.socket(family, socket.SOCK_STREAM)
  try:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(128)
  except OSError as error:
    listener.close()
    if error.errno == errno.EADDRINUSE:
      raise UserError(
        f"--port={port} is taken by another program: choose another, such as --port={port % 65535 + 1}"
      ) from None
    raise UserError(f"--host={host} --port={port}: {(error.strerror or str(error)).lower()}; choose another") from None
  return listener


def serve(shop: Workshop, listener: socket.socket, host: str, network: bool, sites: Sequence[str] = ()) -> None:
  """Serves the page until a signal stops it.

  Args:
    shop: the workshop, already started.
    listener: from `listen`.
    host: the --host value.
    network: whether other machines can reach the page, so that each browser is a separate owner.
    sites: addresses of proxies in front of it.
  """
  uvicorn: Any = importlib.import_module("uvicorn")
  port = listener.getsockname()[1]
  gate = Gate(shop.folder, network, port)
  app = make_app(shop, gate, Origins(host, network, sites))
  for one in shop.aside():
    print(f"set aside: {one.reason}", flush=True)
  address = sites[0] if sites else f"http://{f'[{host}]' if ':' in host else host}:{port}"
  print(f"the page is at {address}/{f'?owner={gate.local_token}' if network else ''}", flush=True)
  if network:
    print("this link shows your own people; without ?owner=..., each browser sees only its own", flush=True)
  config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
  with contextlib.suppress(KeyboardInterrupt):
    uvicorn.Server(config).run(sockets=[listener])


def make_app(shop: Workshop, gate: Gate, origins: Origins) -> Any:
  """Returns the web application: the page at /, people's files at /media."""
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
    options = {"filename": name} if download else {}
    return responses.FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers=_HEADERS, **options)

  def live(request: Any, person: str, job: str) -> Any:
    try:
      partial, final = shop.live(owner(request), person, job)
    except NotFound:
      raise fastapi.HTTPException(404) from None
    chunks = growing(partial, final, lambda: shop.is_open(job))
    return responses.StreamingResponse(chunks, media_type="video/mp4", headers=_HEADERS)

  for function in (media, live):
    function.__annotations__["request"] = fastapi.Request
  app.get("/media/{person}/{what}")(media)
  app.get("/media/{person}/{job}/live")(live)
  fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
  theme = gradio.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=["ui-monospace"])
  blocks = Page(shop, gate).blocks
  blocks.state_session_capacity = _MAX_SESSIONS
  blocks.queue(max_size=_MAX_EVENTS)
  mounted = gradio.mount_gradio_app(
    app, blocks, path="/", theme=theme, css=CSS, show_error=False, ssr_mode=False, footer_links=[],
    max_file_size=shop.limits.megabytes * 10**6, mcp_server=False, run_history=False, enable_monitoring=False,
  )  # fmt: skip
  return Door(mounted, gate, origins, shop.intake)


async def growing(partial: Path, final: Path, is_open: Callable[[], bool]) -> AsyncIterator[bytes]:
  """Yields the bytes of a video while it is being written, so that a browser can play it early.

  Args:
    partial: the growing file, which may not exist yet.
    final: the file it is renamed to.
    is_open: returns whether its job is still waiting or running.
  """
  while not partial.exists():
    if final.exists() or not is_open():
      break
    await asyncio.sleep(_POLL)
  try:
    file = partial.open("rb")
  except FileNotFoundError:
    if not final.exists():
      return
    file = final.open("rb")
  with file:
    while True:
      last = not is_open() or final.exists()
      if data := file.read(_CHUNK):
        yield data
      elif last or _replaced(file, partial):
        return
      else:
        await asyncio.sleep(_POLL)


def _replaced(file: Any, partial: Path) -> bool:
  """Whether the path now names another file: a resumed job rewrote it."""
  try:
    return os.fstat(file.fileno()).st_ino != partial.stat().st_ino
  except FileNotFoundError:
    return False
