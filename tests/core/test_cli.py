import errno
import logging
import os
import sys
import threading
import types

import pytest

from anchor_jax.core import cli
from anchor_jax.core.errors import UserError

STRANGE = "film\x1b[2J\r\x07.mp4"
ESCAPED = "film\\x1b[2J\\r\\x07.mp4"


@pytest.fixture
def hooks(monkeypatch):
  """The exceptions that threads and finalizers report."""
  reported = []
  for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
    monkeypatch.setattr(module, name, reported.append)
  monkeypatch.setattr(sys, "argv", ["command"])
  factory = logging.getLogRecordFactory()
  yield reported
  logging.setLogRecordFactory(factory)


def test_control_characters_in_names_are_printed_as_escapes(hooks, capsys, caplog):
  @cli.command
  def main():
    cli.say(f"wrote {STRANGE}: 3 frames\nand more")
    logging.getLogger("anchor_jax").warning("%s holds %d videos\nno more", STRANGE, 2)
    raise UserError(f"there is no video {STRANGE}")

  with pytest.raises(SystemExit):
    main()
  printed = capsys.readouterr()
  assert printed.out == f"wrote {ESCAPED}: 3 frames\nand more\n" and printed.err.endswith(
    f"there is no video {ESCAPED}\n"
  )
  assert caplog.messages == [f"{ESCAPED} holds 2 videos\nno more"]


def test_operating_system_errors_escape_file_names(hooks, capsys):
  @cli.command
  def main():
    raise PermissionError(errno.EACCES, "Permission denied", STRANGE)

  with pytest.raises(SystemExit):
    main()
  assert capsys.readouterr().err == f"error: cannot use {ESCAPED}: permission denied\n"


def test_threads_print_no_tracebacks_of_a_full_disk(hooks):
  cli.run(lambda: None)
  raise_in_thread = lambda error: threading.excepthook(types.SimpleNamespace(exc_value=error))
  raise_in_thread(OSError("handle is closed"))
  assert len(hooks) == 1  # not because of a full disk
  wrapped = ValueError(f"OUT_OF_RANGE: Error writing local file: {os.strerror(errno.ENOSPC)} [os_error_code='28']")
  raise_in_thread(OSError(errno.EDQUOT, "Disk quota exceeded"))
  raise_in_thread(wrapped)
  sys.unraisablehook(types.SimpleNamespace(exc_value=OSError(errno.EFBIG, "File too large")))
  raise_in_thread(OSError("handle is closed"))  # a consequence of it
  assert len(hooks) == 1
  raise_in_thread(KeyError("step"))
  assert len(hooks) == 2
