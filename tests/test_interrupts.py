"""Ctrl-C ends every command: wherever Python is when it comes, and at once when it comes twice."""

import gc
import signal
import subprocess
import sys
import time

import pytest

from anchor_jax.core.cli import command


@pytest.fixture
def heard():
  """Signals as a command in the foreground has them: processes in the background ignore Ctrl-C."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  signal.signal(signal.SIGINT, before)


def interrupt_once(phase, _, sent=[]):  # noqa: B006 - remembers
  if not sent:
    sent.append(phase)
    signal.raise_signal(signal.SIGINT)  # as if it came here, where JAX clears its caches


def test_an_interrupt_inside_a_callback_of_the_garbage_collector_is_not_lost(heard, capsys):
  """Two of five were: Python prints what such a callback raises, and goes on."""

  @command
  def main():
    gc.callbacks.append(interrupt_once)
    try:
      gc.collect()
      time.sleep(10)
    finally:
      gc.callbacks.remove(interrupt_once)
    pytest.fail("it went on")

  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 130 and "interrupted" in capsys.readouterr().err


def test_other_errors_that_python_drops_are_reported_as_ever(heard, monkeypatch):
  seen = []
  monkeypatch.setattr(sys, "unraisablehook", lambda what: seen.append(what.exc_type))

  class Bad:
    def __del__(self):
      raise ValueError

  @command
  def main():
    bad = Bad()
    del bad

  main()
  assert seen == [ValueError]


def test_a_second_interrupt_ends_a_command_that_is_still_tidying_up():
  program = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from anchor_jax.core.cli import command\n"
    "@command\n"
    "def main():\n"
    "  try:\n"
    "    print('ready', flush=True)\n"
    "    time.sleep(60)\n"
    "  finally:\n"
    "    print('tidying', flush=True)\n"
    "    time.sleep(60)\n"
    "main()\n"
  )
  process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  for line in ("ready", "tidying"):
    assert process.stdout.readline().strip() == line
    process.send_signal(signal.SIGINT)
  assert process.wait(20) == -signal.SIGINT
  process.stdout.close()
