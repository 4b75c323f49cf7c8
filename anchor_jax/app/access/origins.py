"""Decides which requests come from the page itself, by the host name they use and the page that sent them.

Any page in a browser can send requests to this one, even from another port of this machine, and a host name that
resolves to this machine (DNS rebinding) makes such a page look like ours. The headers that browsers set tell them apart
(RFC 9110, Host; the Fetch standard, Origin; Fetch Metadata, Sec-Fetch-Site).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

from anchor_jax.core.errors import UserError, one_line


def site_of(text: str) -> str:
  """Returns a --site value as browsers write an origin: scheme, host name and port.

  Raises:
    UserError: the value is not such an address.
  """
  match = re.fullmatch(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", text.strip().lower())
  if not match:
    raise UserError(
      f"--site={one_line(text, 60)}: give the address that browsers show, such as https://anchor.example.org"
    )
  scheme, name, port = match.groups()
  default = {"http": ":80", "https": ":443"}[scheme]
  return f"{scheme}://{name}{'' if port in (None, default) else port}"


def is_local(host: str) -> bool:
  """Returns whether an address is a loopback address, which no other machine can reach."""
  if host == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


class Origins:
  """The host names and origins that belong to the page."""

  def __init__(self, host: str, network: bool, sites: Iterable[str] = ()):
    """Takes the host it listens on, whether other machines can reach it, and the addresses of proxies in front."""
    self._sites = frozenset(sites)
    self._network = network
    machine = socket.gethostname().lower()
    own = (machine, f"{machine.partition('.')[0]}.local", machine.partition(".")[0]) if network else ()
    self._names = {host.lower(), "localhost", *own, *(_name(site.partition("://")[2]) for site in self._sites)}

  def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Returns the reason to refuse a request, as a message to its sender; None to accept it.

    Args:
      method, path: of the request.
      headers: by lowercase name.
    """
    host = headers.get("host", "").lower()
    if not self._knows(_name(host)):
      return (
        f"this page does not answer to the host name {one_line(host, 60) or '(none)'}: its operator can allow it"
        " with --site"
      )
    origin = headers.get("origin", "").lower()
    if origin and origin != f"http://{host}" and origin not in self._sites:
      return "this page does not accept requests from other pages: open it by its own address"
    visit = method in ("GET", "HEAD") and path == "/" and headers.get("sec-fetch-dest", "document") == "document"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not visit:
      return "this page does not accept requests from other pages: open it by its own address"
    return None

  def _knows(self, name: str) -> bool:
    """Whether the name belongs to the page; on a network, any IP address does, since DNS can't redirect those."""
    if name in self._names:
      return True
    try:
      address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
      return False
    return self._network or address.is_loopback


def _name(host: str) -> str:
  """The name in "name:port", also for "[::1]:80"."""
  match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(:\d+)?", host)
  return match[1] if match else ""
