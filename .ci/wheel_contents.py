"""Checks that a wheel holds the package, its weights and the configs, and nothing else: wheel_contents.py WHEEL."""

import pathlib
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def expected_files() -> set[str]:
  """Returns the names in a complete wheel: sources, mean face, browser page, weights with their card, configs."""
  package = [
    path
    for kind in (
      "*.py",
      "landmarks/*.npz",
      "web/page/*",
      "weights/**/*.safetensors",
      "weights/**/*.json",
      "weights/**/README.md",
    )
    for path in (ROOT / "anchor_jax").rglob(kind)
  ]
  configs = {f"anchor_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
  return {path.relative_to(ROOT).as_posix() for path in package} | configs


def main() -> int:
  """Prints missing and unexpected files; returns 0 if there are none."""
  with zipfile.ZipFile(sys.argv[1]) as wheel:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
  expected = expected_files()
  for kind, names in (("missing", expected - held), ("unexpected", held - expected)):
    for name in sorted(names):
      print(f"{sys.argv[1]}: {kind}: {name}")
  return 0 if held == expected else 1


if __name__ == "__main__":
  sys.exit(main())
