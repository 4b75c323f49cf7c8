"""Results as data: lines that are appended, and the page that is rendered from them."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import results
from anchor_jax.evaluation.results import (
  FIELDS,
  MAX_LINES,
  append_results,
  read_results,
  render,
  report_figures,
  row_of,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_in_docs_is_rendered_from_the_results():
  changed = subprocess.run(["git", "status", "--porcelain", "results"], cwd=ROOT, capture_output=True, check=False)
  if changed.returncode or changed.stdout:
    pytest.skip("no checkout, or results that are not committed yet")
  page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
  assert page == render(ROOT / "results"), "run `make results`"
  assert page.count("\n") <= MAX_LINES


def test_a_line_says_how_it_was_measured(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "argv", [str(ROOT / "anchor_jax/demo.py"), "--output=/somewhere/else/demo", "--size=128"])
  append_results({"demo/128/psnr": (27.5, "dB")}, tmp_path / "demo.jsonl", note="idle")
  (line,) = read_results(tmp_path)
  assert tuple(line) == FIELDS
  assert (line["what"], line["value"], line["unit"], line["note"]) == ("demo/128/psnr", 27.5, "dB", "idle")
  assert line["command"] == "python -m anchor_jax.demo --output=demo --size=128"
  assert "cores" in line["machine"] and line["versions"]["numpy"]


def test_outside_a_checkout_only_a_named_file_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr(results, "_CHECKOUT", tmp_path)
  assert append_results({"demo/psnr": (1.0, "dB")}) == []
  (tmp_path / "results").mkdir()
  assert append_results({"demo/psnr": (1.0, "dB")}) == [tmp_path / "results/demo.jsonl"]
  assert json.loads((tmp_path / "results/demo.jsonl").read_text())["commit"] == ""


def test_lines_of_several_writers_do_not_mix(tmp_path):
  file = tmp_path / "a.jsonl"
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda n: append_results({f"a/{n}/x": (n, ""), f"a/{n}/y": (n, "")}, file), range(8)))
  lines = read_results(tmp_path)
  assert len(lines) == 16
  assert all(a["what"][:-1] == b["what"][:-1] for a, b in zip(lines[::2], lines[1::2]))


def test_the_newest_line_of_a_row_is_shown_and_sections_without_a_title_are_named(tmp_path):
  (tmp_path / "sections.json").write_text('{"demo": "The demo"}')
  append_results({"demo/128/psnr": (1.0, "dB"), "demo/128/ssim": (0.5, "")}, tmp_path / "demo.jsonl")
  append_results({"demo/128/psnr": (2.0, "dB"), "demo/256/psnr": (123.5, "dB")}, tmp_path / "demo.jsonl")
  append_results({"other/a/b": (1, "")}, tmp_path / "other.jsonl")
  page = render(tmp_path)
  assert "| demo | psnr (dB) | ssim | measured |" in page
  assert "| 128 | 2.0 | 0.5 |" in page and "| 256 | 123.5 | |" in page
  assert "[other](../results/other.jsonl)" in page and "| other |" not in page


@pytest.mark.parametrize("name", ["demo", "demo/two words", "/demo/psnr"])
def test_names_without_section_and_column_are_refused(name, tmp_path):
  with pytest.raises(UserError, match="SECTION/ROW/COLUMN"):
    append_results({name: (1.0, "")}, tmp_path / "a.jsonl")


def test_a_line_that_is_no_result_and_a_page_that_is_too_long_are_refused(tmp_path):
  (tmp_path / "sections.json").write_text('{"a": "A"}')
  append_results({f"a/{number}/x": (1, "") for number in range(MAX_LINES)}, tmp_path / "a.jsonl")
  with pytest.raises(UserError, match="more than 200"):
    render(tmp_path)
  (tmp_path / "a.jsonl").write_text('{"what": "a/b"}\n')
  with pytest.raises(UserError, match=r"a.jsonl:1 is not a result"):
    read_results(tmp_path)


def test_figures_of_a_report_have_a_row_for_each_contender():
  report = {"frames": 2, "person": {"generated": {"psnr": 20.0, "ssim": 0.5}, "texture_alone": {"psnr": 10.0}}}
  assert report_figures(report, "demo/128", ("generated", "texture_alone")) == {
    "demo/128/person_psnr": (20.0, "dB"),
    "demo/128/person_ssim": (0.5, ""),
    "demo/128-texture-alone/person_psnr": (10.0, "dB"),
  }


def test_a_row_is_named_after_its_file_and_folder(tmp_path):
  assert row_of("runs/ana/held_out.mp4") == "ana-held_out"
  name = row_of(tmp_path / "a b/ç.mp4")
  append_results({f"evaluate/{name}/person_psnr": (1.0, "dB")}, tmp_path / "a.jsonl")
  assert name.startswith("a-b-")
