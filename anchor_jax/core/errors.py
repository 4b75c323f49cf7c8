"""The exception for users' mistakes, and helpers that format error messages."""

import difflib
import unicodedata
from collections.abc import Iterable, Iterator

_MAX_LENGTH = 1500  # characters of a message


class UserError(Exception):
  """A user's mistake: the message says in one line what is wrong and what to do.

  Control characters, as in file names within the message, are escaped.
  """

  def __init__(self, message: object = ""):
    super().__init__(_shortened(printable(message)))


def _shortened(text: str) -> str:
  """Returns the text, with the middle removed if it is too long to read."""
  return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 500]} ... {text[-400:]}"


def printable(text: object) -> str:
  """Returns a text with unprintable characters escaped, so that a file name cannot control the terminal.

  This includes bytes that are not UTF-8 and marks that change the direction of writing.
  """
  text = str(text)
  if text.isascii() and text.isprintable():
    return text
  return "".join(char if _harmless(char) else char.encode("unicode_escape", "surrogatepass").decode() for char in text)


def _harmless(char: str) -> bool:
  return char.isprintable() or unicodedata.category(char) == "Zs"


class Stopped(SystemExit):
  """An orderly exit after a signal, whose exit code it has.

  Attributes:
    message: one line on what was saved.
  """

  def __init__(self, message: str, code: int):
    super().__init__(code)
    self.message = message


def suggestion(word: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean "..."?' with the closest known word, or '' if none is close."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f' Did you mean "{close[0]}"?' if close else ""


def one_line(cause: object, max_length: int = 200) -> str:
  """Returns the text of an error or value on one line, shortened and never empty, for use in a message."""
  text = printable(" ".join(str(cause).split())) or type(cause).__name__
  return text if len(text) <= max_length else text[:max_length] + "..."


def causes_of(error: BaseException) -> Iterator[BaseException]:
  """Yields the error, then the one it was raised from or while handling, down to the first."""
  found: BaseException | None = error
  while found is not None:
    yield found
    found = found.__cause__ or found.__context__


def root_reason(error: BaseException) -> str:
  """Returns the first line, at most 200 characters, of the message of the error that started it; its type without one.

  Orbax wraps the cause in messages that do not name it.
  """
  *_, root = causes_of(error)
  return (str(root).strip().splitlines() or [type(root).__name__])[0][:200]
