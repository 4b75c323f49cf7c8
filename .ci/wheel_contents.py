"""Checks that a wheel holds the package, its weights and the configs, and nothing else: wheel_contents.py WHEEL."""

import pathlib
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def expected_files() -> set[str]:
  """Names in a wheel: sources, the mean face, the page for browsers, the weights with their card, the configs."""
  package = [
    path
    for kind in (
      "*.py",
      "body/*.npz",
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
  """Prints what is missing or too much; 0 when there is nothing."""
  with zipfile.ZipFile(sys.argv[1]) as wheel:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
  expected = expected_files()
  for kind, names in (("missing", expected - held), ("too much", held - expected)):
    for name in sorted(names):
      print(f"{sys.argv[1]}: {kind}: {name}")
  return 0 if held == expected else 1


if __name__ == "__main__":
  sys.exit(main())
