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
SHOWN = "film\\x1b[2J\\r\\x07.mp4"


@pytest.fixture
def hooks(monkeypatch):
  """What threads and clean-ups report, and what the command hears of them."""
  heard = []
  for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
    monkeypatch.setattr(module, name, heard.append)
  monkeypatch.setattr(sys, "argv", ["command"])
  factory = logging.getLogRecordFactory()
  yield heard
  logging.setLogRecordFactory(factory)


def test_names_are_printed_so_that_a_terminal_obeys_none(hooks, capsys, caplog):
  @cli.command
  def main():
    cli.say(f"wrote {STRANGE}: 3 frames\nand more")
    logging.getLogger("anchor_jax").warning("%s holds %d videos\nno more", STRANGE, 2)
    raise UserError(f"there is no video {STRANGE}")

  with pytest.raises(SystemExit):
    main()
  said = capsys.readouterr()
  assert said.out == f"wrote {SHOWN}: 3 frames\nand more\n" and said.err.endswith(f"there is no video {SHOWN}\n")
  assert caplog.messages == [f"{SHOWN} holds 2 videos\nno more"]


def test_the_system_s_refusals_name_files_printably(hooks, capsys):
  @cli.command
  def main():
    raise PermissionError(errno.EACCES, "Permission denied", STRANGE)

  with pytest.raises(SystemExit):
    main()
  assert capsys.readouterr().err == f"error: cannot use {SHOWN}: permission denied\n"


def test_threads_that_find_the_disk_full_print_nothing(hooks):
  cli.run(lambda: None)
  tell = lambda error: threading.excepthook(types.SimpleNamespace(exc_value=error))
  tell(OSError("handle is closed"))
  assert len(hooks) == 1  # for another reason
  wrapped = ValueError(f"OUT_OF_RANGE: Error writing local file: {os.strerror(errno.ENOSPC)} [os_error_code='28']")
  tell(OSError(errno.EDQUOT, "Disk quota exceeded"))
  tell(wrapped)
  sys.unraisablehook(types.SimpleNamespace(exc_value=OSError(errno.EFBIG, "File too large")))
  tell(OSError("handle is closed"))  # what follows from it
  assert len(hooks) == 1
  tell(KeyError("step"))
  assert len(hooks) == 2
