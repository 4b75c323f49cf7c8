"""Which requests come from the page itself: by the name that a browser knows it by, and by who made the request.

Any page that a browser shows, also one of another port of this machine, can send requests to this one, and a name that
its owner points at this machine (DNS rebinding) makes that page look like ours. What browsers say of a request decides
(RFC 9110, Host; the Fetch standard, Origin; Fetch Metadata, Sec-Fetch-Site).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

from anchor_jax.core.errors import UserError, one_line


def site_of(text: str) -> str:
  """Returns what a user gave as the page's address elsewhere as browsers write it: scheme, name and port.

  Raises:
    UserError: it is no such address.
  """
  match = re.fullmatch(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", text.strip().lower())
  if not match:
    raise UserError(
      f"--site={one_line(text, 60)}: give the address that browsers show, such as https://anchor.example.org"
    )
  scheme, name, port = match.groups()
  ordinary = {"http": ":80", "https": ":443"}[scheme]
  return f"{scheme}://{name}{'' if port in (None, ordinary) else port}"


def is_local(host: str) -> bool:
  """Whether an address is this machine's own, which no other can reach."""
  if host == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


class Origins:
  """The names and addresses under which the page is itself."""

  def __init__(self, host: str, network: bool, sites: Iterable[str] = ()):
    """Takes where the page listens, whether other machines reach it, and the addresses of proxies before it."""
    self._sites = frozenset(sites)
    self._network = network
    machine = socket.gethostname().lower()
    own = (machine, f"{machine.partition('.')[0]}.local", machine.partition(".")[0]) if network else ()
    self._names = {host.lower(), "localhost", *own, *(_name(site.partition("://")[2]) for site in self._sites)}

  def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Returns why a request is not answered, in words for who sent it; None where it may be ours.

    Args:
      method, path: of the request.
      headers: by their names in small letters.
    """
    host = headers.get("host", "").lower()
    if not self._knows(_name(host)):
      return f"this page is not called {one_line(host, 60) or 'nothing'}: who runs it can allow that name with --site"
    origin = headers.get("origin", "").lower()
    if origin and origin != f"http://{host}" and origin not in self._sites:
      return "this page does not take requests of other pages: open it by its own address"
    visit = method in ("GET", "HEAD") and path == "/" and headers.get("sec-fetch-dest", "document") == "document"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not visit:
      return "this page does not take requests of other pages: open it by its own address"
    return None

  def _knows(self, name: str) -> bool:
    """Whether the page is called so; on a network, by any address in numbers, which is nobody else's name."""
    if name in self._names:
      return True
    try:
      address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
      return False
    return self._network or address.is_loopback


def _name(host: str) -> str:
  """The name in "name:port"; of "[::1]:80" too."""
  match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(:\d+)?", host)
  return match[1] if match else ""
