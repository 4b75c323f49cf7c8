"""Which requests come from the page itself: names, ports, and what browsers say of who made a request."""

import pytest

from anchor_jax.app.access.origins import Origins, is_local, site_of
from anchor_jax.app.command import main
from anchor_jax.core.errors import UserError

ALONE = Origins("127.0.0.1", False)
NETWORK = Origins("0.0.0.0", True)
BEHIND = Origins("127.0.0.1", True, [site_of("https://Anchor.example.org/")])


def let_in(origins, method="POST", path="/gradio_api/upload", **headers):
  return origins.refusal(method, path, {name.replace("_", "-"): value for name, value in headers.items()}) is None


@pytest.mark.parametrize(
  "origins,host,right",
  [
    *((ALONE, host, True) for host in ("127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860", "127.0.0.2:80")),
    *((ALONE, host, False) for host in ("", "evil.example:7860", "192.168.0.2:7860", "localhost.evil.example", "::1")),
    (ALONE, "127.0.0.1:7860@evil.example", False),
    *((NETWORK, host, True) for host in ("192.168.0.2:7860", "localhost:7860", "[fe80::1]:7860")),
    *((NETWORK, host, False) for host in ("evil.example:7860", "")),
    *((BEHIND, host, True) for host in ("anchor.example.org", "127.0.0.1:7860")),
    (BEHIND, "evil.example", False),
  ],
)
def test_the_page_answers_to_its_own_names_alone(origins, host, right):
  assert let_in(origins, host=host) == right


@pytest.mark.parametrize(
  "origins,host,origin,right",
  [
    (ALONE, "127.0.0.1:7860", "http://127.0.0.1:7860", True),
    (ALONE, "127.0.0.1:7860", "http://127.0.0.1:3000", False),  # another page of this machine
    (ALONE, "127.0.0.1:7860", "http://localhost:7860", False),
    (ALONE, "127.0.0.1:7860", "https://127.0.0.1:7860", False),
    (ALONE, "127.0.0.1:7860", "null", False),
    (ALONE, "127.0.0.1:7860", "https://evil.example", False),
    (BEHIND, "127.0.0.1:7860", "https://anchor.example.org", True),
    (BEHIND, "anchor.example.org", "https://anchor.example.org", True),
    (BEHIND, "anchor.example.org", "https://other.example.org", False),
  ],
)
def test_other_origins_are_refused(origins, host, origin, right):
  assert let_in(origins, host=host, origin=origin) == right


def test_what_browsers_say_of_a_request_counts_but_for_a_visit_of_the_page():
  host = {"host": "localhost:7860"}
  for site, right in {"same-origin": True, "none": True, "same-site": False, "cross-site": False}.items():
    assert let_in(ALONE, sec_fetch_site=site, **host) == right
    assert let_in(ALONE, "GET", "/media/x/y", sec_fetch_site=site, **host) == right
    assert let_in(ALONE, "GET", "/", sec_fetch_site=site, sec_fetch_dest="document", **host)
    assert let_in(ALONE, "GET", "/", sec_fetch_site=site, sec_fetch_dest="iframe", **host) == right


def test_addresses_of_a_proxy_are_as_browsers_write_them():
  assert site_of("https://a.example:443") == "https://a.example"
  assert site_of("http://A.example:8080/") == "http://a.example:8080"
  for wrong in ("a.example", "ftp://a.example", "https://a.example/x", "https://a.example:x", "*", "https://"):
    with pytest.raises(UserError, match="--site="):
      site_of(wrong)
  assert is_local("localhost") and is_local("::1") and not is_local("0.0.0.0") and not is_local("a.example")


@pytest.mark.parametrize(
  "flag,told", [("--host=", "names no address"), ("--site=x", "--site=x"), ("--gigabytes=0", "0")]
)
def test_wrong_flags_are_one_line(flag, told, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["app", f"--folder={tmp_path}/shop", flag])
  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 2 and told in capsys.readouterr().err and not (tmp_path / "shop").exists()
