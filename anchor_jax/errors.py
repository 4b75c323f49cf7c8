"""The exception for mistakes of users, and suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """A mistake of the person at the keyboard: the message says what is wrong and what to do, in one line."""


def suggestion(word: str, known: Iterable[str]) -> str:
  """' Did you mean "..."?' for the closest known word, or '' when none is close."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f' Did you mean "{close[0]}"?' if close else ""


def one_line(cause: object, longest: int = 200) -> str:
  """Returns the text of an error or a value for use within a message: on one line, shortened, never empty."""
  text = " ".join(str(cause).split()) or type(cause).__name__
  return text if len(text) <= longest else text[:longest] + "..."
