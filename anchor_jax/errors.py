"""The exception for mistakes of users, and suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """A mistake of the person at the keyboard: the message says what is wrong and what to do, in one line."""


def suggestion(word: str, known: Iterable[str]) -> str:
  """' Did you mean "..."?' for the closest known word, or '' when none is close."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f' Did you mean "{close[0]}"?' if close else ""
