"""Who is who: a random token in the browser's cookie decides which people it sees.

On this machine alone (the default) all browsers are one owner. Opened to a network, each browser gets a token of its
own; only a hash of it is kept, as the owner's name. The token of this machine's owner is in FOLDER/token, and the link
that is printed with it makes another browser hers too.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

COOKIE = "anchor_owner"
_YEAR = 365 * 24 * 3600
_LENGTH = 43  # characters of a token: 32 random bytes


def new_token() -> str:
  """Returns a token that nobody can guess."""
  return secrets.token_urlsafe(32)


def own_token(folder: Path) -> str:
  """Returns the token of this machine's owner, which is made at the first start."""
  path = folder / "token"
  if not path.exists():
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
      file.write(new_token())
  return path.read_text().strip()


def owner_of(token: str) -> str:
  """Returns the name of the owner who has a token; the token can't be told from it."""
  return hashlib.sha256(token.encode()).hexdigest()[:32]


def token_in(cookies: Mapping[str, str]) -> str | None:
  """Returns the token in a browser's cookies; None where there is none that could be ours."""
  token = cookies.get(COOKIE, "")
  return token if re.fullmatch(rf"[A-Za-z0-9_-]{{{_LENGTH}}}", token) else None


def cookies_of(header: str) -> dict[str, str]:
  """Returns the cookies in a Cookie header; none where it is malformed."""
  try:
    return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
  except CookieError:
    return {}


def cookie_header(token: str) -> str:
  """Returns the Set-Cookie header for a token: no script reads it, and no other site's page sends it."""
  return f"{COOKIE}={token}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Strict"


class Gate:
  """Who a browser is, by its cookies."""

  def __init__(self, folder: Path, network: bool):
    """Takes the folder of the page, and whether other machines can reach it."""
    self.network, self.own = network, own_token(folder)

  def owner(self, cookies: Mapping[str, str]) -> str | None:
    """Returns the owner who a browser is; None where it has no token yet, and the page is open to a network."""
    token = token_in(cookies) if self.network else self.own
    return None if token is None else owner_of(token)

  def new_cookie(self, cookies: Mapping[str, str], given: str) -> str | None:
    """Returns the token that a browser is to be given: this machine's for the printed link, else a new one.

    Args:
      cookies: that it sent.
      given: what its link names as the owner; "" where it names none.

    Returns:
      None where it has a token already, or needs none.
    """
    if not self.network:
      return None
    if given and secrets.compare_digest(given.encode(), self.own.encode()):
      return self.own
    return None if token_in(cookies) else new_token()
