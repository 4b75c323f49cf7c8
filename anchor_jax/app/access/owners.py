"""Who is who: a random token in the browser's cookie decides which people it sees.

On this machine alone (the default) all browsers are one owner. Opened to a network, each browser gets a token of its
own; only a hash of it is kept, as the owner's name. The token of this machine's owner is in FOLDER/token, and the link
that is printed with it makes another browser hers too.

Besides, whoever opens the page gets its pass, a second cookie that follows from the token and FOLDER/token: without it
nothing is uploaded, done or shown, so that a program or page that only knows the address gets nowhere.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import read_bytes
from anchor_jax.files.outputs import new_file

COOKIE = "anchor_owner"
_PASS = "anchor_page"
_YEAR = 365 * 24 * 3600
_LENGTH = 43  # characters of a token: 32 random bytes


def new_token() -> str:
  """Returns a token that nobody can guess."""
  return secrets.token_urlsafe(32)


def own_token(folder: Path) -> str:
  """Returns the token of this machine's owner, which is made at the first start.

  Raises:
    UserError: it is damaged.
  """
  path = folder / "token"
  if not os.path.lexists(path):
    with new_file(path) as partial:
      partial.unlink(missing_ok=True)
      with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(new_token())
  token = read_bytes(path, "token", 1000).decode("ascii", "replace").strip()
  if not _is_token(token):
    raise UserError(
      f"{path} is damaged: put it back from a copy; without it a new one is made, which sees none of its people"
    )
  return token


def owner_of(token: str) -> str:
  """Returns the name of the owner who has a token; the token can't be told from it."""
  return hashlib.sha256(token.encode()).hexdigest()[:32]


def token_in(cookies: Mapping[str, str]) -> str | None:
  """Returns the token in a browser's cookies; None where there is none that could be ours."""
  token = cookies.get(COOKIE, "")
  return token if _is_token(token) else None


def _is_token(text: str) -> bool:
  return re.fullmatch(rf"[A-Za-z0-9_-]{{{_LENGTH}}}", text) is not None


def cookies_of(header: str) -> dict[str, str]:
  """Returns the cookies in a Cookie header; other pages of this machine may set odd ones."""
  pairs = (part.partition("=") for part in header.split(";"))
  return {name.strip(): value.strip().strip('"') for name, equals, value in pairs if equals}


def cookie_header(token: str, name: str = COOKIE) -> str:
  """Returns the Set-Cookie header for a token: no script reads it, and no other site's page sends it."""
  return f"{name}={token}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Strict"


class Gate:
  """Who a browser is, by its cookies."""

  def __init__(self, folder: Path, network: bool, port: int = 0):
    """Takes the folder of the page, whether other machines can reach it, and its port (cookies know none)."""
    self.network, self.own = network, own_token(folder)
    self.own_owner, self._pass = owner_of(self.own), f"{_PASS}_{port}"

  def has_pass(self, cookies: Mapping[str, str]) -> bool:
    """Whether a browser has opened the page, and is the one that it was then."""
    token = token_in(cookies) if self.network else self.own
    given = cookies.get(self._pass, "")
    return token is not None and secrets.compare_digest(given.encode(), self._pass_of(token).encode())

  def pass_header(self, cookies: Mapping[str, str], token: str | None) -> str | None:
    """Returns the Set-Cookie header with the pass for who opens the page; None where there is no need.

    Args:
      cookies: that the browser sent.
      token: that it gets with the same answer, see `new_cookie`.
    """
    token = token or (token_in(cookies) if self.network else self.own)
    if token is None or cookies.get(self._pass) == self._pass_of(token):
      return None
    return cookie_header(self._pass_of(token), self._pass)

  def _pass_of(self, token: str) -> str:
    made = hmac.digest(self.own.encode(), b"page " + token.encode(), "sha256")
    return base64.urlsafe_b64encode(made).decode().rstrip("=")

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
