"""The exception for mistakes of users, and suggestions for misspelt names."""

import difflib
import unicodedata
from collections.abc import Iterable, Iterator

_LONGEST = 1500  # characters of a message


class UserError(Exception):
  """A mistake of the person at the keyboard: the message says what is wrong and what to do, in one line.

  Names of files and values are put into messages as they are; here control characters in them are shown as escapes.
  """

  def __init__(self, message: object = ""):
    super().__init__(_shortened(printable(message)))


def _shortened(text: str) -> str:
  """The text, without the middle of what is too long to read: a value that was given may have any length."""
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 500]} ... {text[-400:]}"


def printable(text: object) -> str:
  """Returns a text with control characters and the like as escapes: a terminal shows a file's name, and obeys none.

  Also bytes of names that are not UTF-8, and marks that turn the direction of writing.
  """
  text = str(text)
  if text.isascii() and text.isprintable():
    return text
  return "".join(one if _harmless(one) else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def _harmless(one: str) -> bool:
  return one.isprintable() or unicodedata.category(one) == "Zs"


class Stopped(SystemExit):
  """The work was stopped by a signal, in order; the code is that of the signal.

  Attributes:
    message: what was saved, in one line.
  """

  def __init__(self, message: str, code: int):
    super().__init__(code)
    self.message = message


def suggestion(word: str, known: Iterable[str]) -> str:
  """' Did you mean "..."?' for the closest known word, or '' when none is close."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f' Did you mean "{close[0]}"?' if close else ""


def one_line(cause: object, longest: int = 200) -> str:
  """Returns the text of an error or a value for use within a message: on one line, shortened, never empty."""
  text = printable(" ".join(str(cause).split())) or type(cause).__name__
  return text if len(text) <= longest else text[:longest] + "..."


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
