"""Identifies browsers: a random token in a cookie decides which people a browser sees.

On a local page (the default) all browsers are one owner. On a network, each browser gets its own token; only a hash of
it is stored, as the owner's name. The token of this machine's owner is in FOLDER/token, and the printed link contains
it, so that another browser can become the same owner.

Opening the page also sets a pass, a second cookie derived from the token and FOLDER/token. Nothing is uploaded, done or
shown without it, so that a program or page that only knows the address can't do anything.
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
_LENGTH = 43  # characters of a token, which encodes 32 random bytes


def new_token() -> str:
  """Returns an unguessable token."""
  return secrets.token_urlsafe(32)


def local_token(folder: Path) -> str:
  """Returns the token of this machine's owner, creating it at the first start.

  Raises:
    UserError: the file is damaged.
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
      f"{path} is damaged: restore it from a backup (if you remove it, a new token is created, which can't see the"
      " people of the old one)"
    )
  return token


def owner_of(token: str) -> str:
  """Returns the owner's name for a token, a hash that does not reveal the token."""
  return hashlib.sha256(token.encode()).hexdigest()[:32]


def token_in(cookies: Mapping[str, str]) -> str | None:
  """Returns the token in a browser's cookies, or None if there is no well-formed one."""
  token = cookies.get(COOKIE, "")
  return token if _is_token(token) else None


def _is_token(text: str) -> bool:
  return re.fullmatch(rf"[A-Za-z0-9_-]{{{_LENGTH}}}", text) is not None


def cookies_of(header: str) -> dict[str, str]:
  """Returns the cookies in a Cookie header; tolerates odd ones that other pages of this machine may set."""
  pairs = (part.partition("=") for part in header.split(";"))
  return {name.strip(): value.strip().strip('"') for name, equals, value in pairs if equals}


def cookie_header(token: str, name: str = COOKIE) -> str:
  """Returns the Set-Cookie header for a token, hidden from scripts and from other sites' requests."""
  return f"{name}={token}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Strict"


class Gate:
  """Identifies browsers by their cookies.

  Attributes:
    network: whether other machines can reach the page.
    local_token: token of this machine's owner.
    local_owner: name of this machine's owner.
  """

  def __init__(self, folder: Path, network: bool, port: int = 0):
    """Takes the page's folder, whether other machines can reach it, and its port, since cookies ignore ports."""
    self.network, self.local_token = network, local_token(folder)
    self.local_owner, self._pass = owner_of(self.local_token), f"{_PASS}_{port}"

  def has_pass(self, cookies: Mapping[str, str]) -> bool:
    """Returns whether a browser has opened the page with the token that it has now."""
    token = token_in(cookies) if self.network else self.local_token
    sent = cookies.get(self._pass, "")
    return token is not None and secrets.compare_digest(sent.encode(), self._pass_of(token).encode())

  def pass_header(self, cookies: Mapping[str, str], token: str | None) -> str | None:
    """Returns the Set-Cookie header with the pass for a browser that opens the page; None if it has one.

    Args:
      cookies: cookies of the request.
      token: token set by the same response, see `new_cookie`.
    """
    token = token or (token_in(cookies) if self.network else self.local_token)
    if token is None or cookies.get(self._pass) == self._pass_of(token):
      return None
    return cookie_header(self._pass_of(token), self._pass)

  def _pass_of(self, token: str) -> str:
    digest = hmac.digest(self.local_token.encode(), b"page " + token.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")

  def owner(self, cookies: Mapping[str, str]) -> str | None:
    """Returns the owner's name for a browser; None if the page is on a network and the browser has no token yet."""
    token = token_in(cookies) if self.network else self.local_token
    return None if token is None else owner_of(token)

  def new_cookie(self, cookies: Mapping[str, str], linked: str) -> str | None:
    """Returns the token to set for a browser: this machine's for the printed link, otherwise a new one.

    Args:
      cookies: cookies of the request.
      linked: the link's `owner` parameter; "" if it has none.

    Returns:
      The token; None if the browser has one already, or needs none.
    """
    if not self.network:
      return None
    if linked and secrets.compare_digest(linked.encode(), self.local_token.encode()):
      return self.local_token
    return None if token_in(cookies) else new_token()
