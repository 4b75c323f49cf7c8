"""Renders the API reference from docstrings and checks its links: render.py FOLDER (`make docs`)."""

import html.parser
import importlib
import pathlib
import sys
import urllib.parse
import warnings

import pdoc
import pdoc.render

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = "anchor_jax"


class Links(html.parser.HTMLParser):
  """The anchors of a page, and the links on it."""

  def __init__(self, text: str):
    """Parses a page."""
    super().__init__()
    self.anchors: set[str] = set()
    self.links: set[str] = set()
    self.feed(text)

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    """Collects `id` and `href`."""
    for name, value in attrs:
      if name == "id" and value:
        self.anchors.add(value)
      elif name == "href" and tag == "a" and value:
        self.links.add(value)


def module_names() -> list[str]:
  """The package, its commands and its rooms; pdoc adds what is inside the rooms."""
  paths = [
    path for path in sorted((ROOT / PACKAGE).iterdir()) if (path / "__init__.py").exists() or path.suffix == ".py"
  ]
  exported = importlib.import_module(PACKAGE).__all__  # pdoc adds these to the package
  return [PACKAGE, *(f"{PACKAGE}.{path.stem}" for path in paths if path.stem not in ("__init__", *exported))]


def broken_links(folder: pathlib.Path) -> list[str]:
  """Links to pages or anchors that are not in the folder."""
  pages = {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
  broken = []
  for path, page in pages.items():
    for link in sorted(page.links):
      address = urllib.parse.urlparse(link)
      if address.scheme or address.netloc:
        continue
      target = (path.parent / urllib.parse.unquote(address.path)).resolve() if address.path else path
      if target not in pages or (
        address.fragment and urllib.parse.unquote(address.fragment) not in pages[target].anchors
      ):
        broken.append(f"{path.relative_to(folder.resolve())}: {link}")
  return broken


def main() -> int:
  """Writes the reference; returns 1 after a warning of the generator or a broken link."""
  folder = pathlib.Path(sys.argv[1])
  sys.path.insert(0, str(ROOT))
  for lazy in (importlib.import_module(PACKAGE), importlib.import_module(f"{PACKAGE}.core.shapes")):
    for name in lazy.__all__:  # imported on first use, which pdoc does not know
      setattr(lazy, name, getattr(lazy, name))
  pdoc.render.configure(docformat="google", search=False, show_source=False, template_directory=HERE)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pdoc.pdoc(*module_names(), output_directory=folder)
  problems = [str(warning.message) for warning in caught if "pdoc" in warning.filename] + broken_links(folder)
  for problem in problems:
    print(problem)
  print(f"{folder}/index.html: {len(list(folder.rglob('*.html')))} pages, {len(problems)} problems")
  return 1 if problems else 0


if __name__ == "__main__":
  sys.exit(main())
