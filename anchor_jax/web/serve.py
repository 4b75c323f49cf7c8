"""Serves the folder that this file is in to this machine: python serve.py [PORT].

Any other server of files will do, such as python -m http.server. This one says that the page stands alone
(cross-origin isolation), which browsers ask for before they let it compute with several threads.
"""

import contextlib
import functools
import http.server
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
  """Files, with the headers of an isolated page."""

  extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

  def end_headers(self) -> None:
    """Adds the headers."""
    self.send_header("Cross-Origin-Opener-Policy", "same-origin")
    self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
    self.send_header("Cache-Control", "no-cache")
    super().end_headers()

  def log_message(self, format: str, *args: object) -> None:
    """Says nothing of single files."""


def main(port: str = "8000") -> None:
  """Serves until it is stopped."""
  handler = functools.partial(Handler, directory=str(Path(__file__).resolve().parent))
  with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler) as server:
    print(f"http://127.0.0.1:{server.server_port}/ (stop with Ctrl-C)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      server.serve_forever()


if __name__ == "__main__":
  main(*sys.argv[1:])
