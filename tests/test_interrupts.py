"""Ctrl-C ends every command, wherever it arrives; a second one ends it immediately."""

import gc
import signal
import subprocess
import sys
import time

import pytest

from anchor_jax.core.cli import command


@pytest.fixture
def foreground():
  """Signal handlers of a process in the foreground; one in the background ignores Ctrl-C."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  signal.signal(signal.SIGINT, before)


def interrupt_once(phase, _, sent=[]):  # noqa: B006 - state across calls
  if not sent:
    sent.append(phase)
    signal.raise_signal(signal.SIGINT)  # as if it arrived here, where JAX clears its caches


def test_an_interrupt_inside_a_callback_of_the_garbage_collector_is_not_lost(foreground, capsys):
  """Python prints an exception in such a callback and continues."""

  @command
  def main():
    gc.callbacks.append(interrupt_once)
    try:
      gc.collect()
      time.sleep(10)
    finally:
      gc.callbacks.remove(interrupt_once)
    pytest.fail("not interrupted")

  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 130 and "interrupted" in capsys.readouterr().err


def test_other_exceptions_that_python_drops_are_still_reported(foreground, monkeypatch):
  reported = []
  monkeypatch.setattr(sys, "unraisablehook", lambda dropped: reported.append(dropped.exc_type))

  class Bad:
    def __del__(self):
      raise ValueError

  @command
  def main():
    bad = Bad()
    del bad

  main()
  assert reported == [ValueError]


def test_a_second_interrupt_ends_a_command_during_cleanup():
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
    "    print('cleanup', flush=True)\n"
    "    time.sleep(60)\n"
    "main()\n"
  )
  process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  for line in ("ready", "cleanup"):
    assert process.stdout.readline().strip() == line
    process.send_signal(signal.SIGINT)
  assert process.wait(20) == -signal.SIGINT
  process.stdout.close()
