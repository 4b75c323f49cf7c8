"""Which requests are accepted: host names, origins, and the headers that browsers set."""

import pytest

from anchor_jax.app.access.origins import Origins, is_local, site_of
from anchor_jax.app.command import main
from anchor_jax.core.errors import UserError

ALONE = Origins("127.0.0.1", False)
NETWORK = Origins("0.0.0.0", True)
BEHIND = Origins("127.0.0.1", True, [site_of("https://Anchor.example.org/")])


def accepted(origins, method="POST", path="/gradio_api/upload", **headers):
  return origins.refusal(method, path, {name.replace("_", "-"): value for name, value in headers.items()}) is None


@pytest.mark.parametrize(
  "origins,host,expected",
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
def test_the_page_answers_only_to_its_own_names(origins, host, expected):
  assert accepted(origins, host=host) == expected


@pytest.mark.parametrize(
  "origins,host,origin,expected",
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
def test_other_origins_are_refused(origins, host, origin, expected):
  assert accepted(origins, host=host, origin=origin) == expected


def test_fetch_metadata_is_checked_except_for_navigation_to_the_page():
  host = {"host": "localhost:7860"}
  for site, expected in {"same-origin": True, "none": True, "same-site": False, "cross-site": False}.items():
    assert accepted(ALONE, sec_fetch_site=site, **host) == expected
    assert accepted(ALONE, "GET", "/media/x/y", sec_fetch_site=site, **host) == expected
    assert accepted(ALONE, "GET", "/", sec_fetch_site=site, sec_fetch_dest="document", **host)
    assert accepted(ALONE, "GET", "/", sec_fetch_site=site, sec_fetch_dest="iframe", **host) == expected


def test_site_is_normalized_as_browsers_write_origins():
  assert site_of("https://a.example:443") == "https://a.example"
  assert site_of("http://A.example:8080/") == "http://a.example:8080"
  for wrong in ("a.example", "ftp://a.example", "https://a.example/x", "https://a.example:x", "*", "https://"):
    with pytest.raises(UserError, match="--site="):
      site_of(wrong)
  assert is_local("localhost") and is_local("::1") and not is_local("0.0.0.0") and not is_local("a.example")


@pytest.mark.parametrize(
  "flag,message", [("--host=", "names no address"), ("--site=x", "--site=x"), ("--gigabytes=0", "0")]
)
def test_wrong_flags_are_one_line_errors(flag, message, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["app", f"--folder={tmp_path}/shop", flag])
  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "shop").exists()
