"""The web server: Gradio's page and the files of people for those who may see them, behind the door."""

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

_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".html": "text/html", ".zip": "application/zip"}
# Our reports bring their style and pictures with them, and no script.
_HEADERS = {
  "Cache-Control": "private, no-store",
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; media-src 'self'",
}
_PIECE = 2**16
_NAP = 0.2  # seconds between two looks at a video that grows
_MOST_EVENTS = 256  # that wait in Gradio's queue
_MOST_SESSIONS = 1000  # whose state Gradio keeps


def listen(host: str, port: int) -> socket.socket:
  """Returns a socket that listens.

  Raises:
    UserError: the port is taken, or there is no such address.
  """
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost has two
  except (OSError, UnicodeError):
    raise UserError(f"--host={one_line(host, 60)}: this machine has no such address") from None
  place = socket.socket(family, socket.SOCK_STREAM)
  try:
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(address)
    place.listen(128)
  except OSError as error:
    place.close()
    if error.errno == errno.EADDRINUSE:
      raise UserError(
        f"--port={port} is taken by another program: choose another, such as --port={port % 65535 + 1}"
      ) from None
    raise UserError(f"--host={host} --port={port}: {(error.strerror or str(error)).lower()}; choose another") from None
  return place


def serve(shop: Workshop, place: socket.socket, host: str, network: bool, sites: Sequence[str] = ()) -> None:
  """Serves the page until it is stopped by a signal.

  Args:
    shop: the workshop, which works already.
    place: the socket, see `listen`.
    host: what it listens at, as the user gave it.
    network: whether other machines can reach it, so that browsers are told apart.
    sites: addresses of proxies before it.
  """
  uvicorn: Any = importlib.import_module("uvicorn")
  port = place.getsockname()[1]
  gate = Gate(shop.folder, network, port)
  app = make_app(shop, gate, Origins(host, network, sites))
  for one in shop.aside():
    print(f"set aside: {one.why}", flush=True)
  address = sites[0] if sites else f"http://{f'[{host}]' if ':' in host else host}:{port}"
  print(f"the page is at {address}/{f'?owner={gate.own}' if network else ''}", flush=True)
  if network:
    print("that link shows your own people; without ?owner=..., each browser has people of its own", flush=True)
  config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
  with contextlib.suppress(KeyboardInterrupt):
    uvicorn.Server(config).run(sockets=[place])


def make_app(shop: Workshop, gate: Gate, origins: Origins) -> Any:
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
  plain = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
  theme = gradio.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=plain, font_mono=["ui-monospace"])
  blocks = Page(shop, gate).blocks
  blocks.state_session_capacity = _MOST_SESSIONS
  blocks.queue(max_size=_MOST_EVENTS)
  mounted = gradio.mount_gradio_app(
    app, blocks, path="/", theme=theme, css=CSS, show_error=False, ssr_mode=False, footer_links=[],
    max_file_size=shop.limits.megabytes * 10**6, mcp_server=False, run_history=False, enable_monitoring=False,
  )  # fmt: skip
  return Door(mounted, gate, origins, shop.intake)


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
