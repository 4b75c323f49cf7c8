"""Files, modules and targets that launch files and documents name must exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMING = [*sorted((ROOT / "launch").iterdir()), ROOT / "Makefile", *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("path", NAMING, ids=lambda path: path.name)
def test_named_files_and_modules_exist(path):
  text = path.read_text(encoding="utf-8") if path.is_file() else ""
  named = re.findall(r"(?<![\w/.-])((?:configs|launch|requirements)/[\w-]+\.(?:py|sh|txt|yaml|sbatch))", text)
  modules = [name.replace(".", "/") for name in re.findall(r"-m (?:#?\s*)(anchor_jax(?:\.\w+)+)", text)]
  packages = {name for name in modules if (ROOT / name / "__main__.py").exists()}
  named += [f"{name}.py" for name in modules if name not in packages]
  assert not [name for name in named if not (ROOT / name).exists()]


def test_make_targets_named_in_documents_exist():
  targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
  for path in NAMING:
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)$", text, re.MULTILINE))
    assert {first or second for first, second in named} <= targets, path.name
