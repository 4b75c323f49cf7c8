"""Serves this file's folder on localhost: python serve.py [PORT].

Any other file server works too, such as python -m http.server. This one sends the headers for cross-origin isolation,
without which browsers run only one thread.
"""

import contextlib
import functools
import http.server
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
  """Serves files with the headers for cross-origin isolation."""

  extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

  def end_headers(self) -> None:
    """Adds the headers."""
    self.send_header("Cross-Origin-Opener-Policy", "same-origin")
    self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
    self.send_header("Cache-Control", "no-cache")
    super().end_headers()

  def log_message(self, format: str, *args: object) -> None:
    """Logs nothing for individual files."""


def main(port: str = "8000") -> None:
  """Serves until interrupted."""
  handler = functools.partial(Handler, directory=str(Path(__file__).resolve().parent))
  with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler) as server:
    print(f"http://127.0.0.1:{server.server_port}/ (stop with Ctrl-C)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      server.serve_forever()


if __name__ == "__main__":
  main(*sys.argv[1:])
