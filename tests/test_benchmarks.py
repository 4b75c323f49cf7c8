"""`make bench` without torch: the comparison with a peer process, and its rows."""

import json
import pathlib
import sys
import textwrap

import numpy as np
import pytest
from rows import Peer, Work, largest_difference, measure, table

from anchor_jax.core.errors import UserError

PEER = """
import json, sys
import numpy as np
for line in sys.stdin:
  request = json.loads(line)
  if request["do"] == "load" and request["kind"] == "none":
    answer = {"error": "unknown workload"}
  elif request["do"] == "output":
    np.savez(request["file"], doubled=2 * np.arange(4.0) + FAULT)
    answer = {}
  elif request["do"] == "compile":
    answer = {"reason": REASON}
  elif request["do"] == "time":
    answer = {"seconds": 0.25 if request["compiled"] else 0.5}
  elif request["do"] == "load":
    answer = {}
  print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def peer(tmp_path):
  def start(fault=0.0, reason=None):
    text = textwrap.dedent(PEER).replace("FAULT", repr(fault)).replace("REASON", repr(reason))
    (tmp_path / "peer.py").write_text(text)
    return Peer([sys.executable, str(tmp_path / "peer.py")])

  return start


def work(folder: pathlib.Path, ran: list[int], kind: str = "double") -> Work:
  return Work("double_x2", kind, folder, lambda: {"doubled": 2 * np.arange(4.0)}, lambda: ran.append(1), 1.5)


def test_a_row_has_the_medians_of_alternating_runs_and_their_ratio(tmp_path, peer):
  ran = []
  with peer(fault=1e-5) as process:
    row = measure(work(tmp_path, ran), process, rounds=5)
  assert len(ran) == 6  # one to warm up
  assert row["torch_s"] == 0.5 and row["torch_compiled_s"] == 0.25
  assert row["ours_s"] == np.median(row["ours_all_s"]) and row["ratio"] == 0.5 / row["ours_s"]
  assert row["max_abs_diff"] == pytest.approx(1e-5)
  assert json.loads(json.dumps(row))["name"] == "double_x2"
  assert "double_x2" in table([row])


def test_a_row_without_a_compiled_form_says_why(tmp_path, peer):
  with peer(reason="no compiler") as process:
    row = measure(work(tmp_path, []), process, rounds=1)
    skipped = measure(work(tmp_path, []), process, rounds=9, compiled="not requested", deadline=0)
  assert row["torch_compiled_s"] is None and row["torch_compiled_reason"] == "no compiler"
  assert skipped["torch_compiled_reason"] == "not requested" and len(skipped["torch_all_s"]) == 3
  assert "torch, compiled: no compiler" in table([row, skipped])


def test_different_numbers_are_not_timed(tmp_path, peer):
  ran = []
  with peer(fault=0.01) as process, pytest.raises(UserError, match="doubled differs by"):
    measure(work(tmp_path, ran), process, rounds=5)
  assert not ran


def test_a_peer_that_fails_or_ends_is_reported(tmp_path, peer):
  with peer() as process, pytest.raises(UserError, match="unknown workload"):
    measure(work(tmp_path, [], kind="none"), process, rounds=1)
  with Peer([sys.executable, "-c", ""]) as process, pytest.raises(UserError, match="ended before it answered"):
    process.ask("load")


@pytest.mark.parametrize("expected", [{}, {"a": np.zeros(2)}, {"a": np.full(3, np.nan)}])
def test_missing_misshapen_and_non_finite_arrays_differ(expected):
  with pytest.raises(UserError):
    largest_difference("row", {"a": np.ones(3)}, expected)
