"""The distribution's chromium, for tests of web pages."""

import contextlib
import os
import shutil
import socket

import pytest

EXECUTABLE = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()
)


@contextlib.contextmanager
def started(arguments=ARGUMENTS):
  """Context with a browser; the test fails with instructions if there is none."""
  if not EXECUTABLE:
    pytest.fail("no browser: install chromium (Debian: apt-get install chromium), or name one: CHROMIUM=/path")
  from playwright.sync_api import sync_playwright

  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=list(arguments))
    yield browser
    browser.close()


def free_port():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]
