"""Zips a bundle for download and removes its folder.

Example:
  python -m anchor_jax.app.jobs.pack --folder=bundle --output=bundle.zip
"""

import shutil
import zipfile
from pathlib import Path

from anchor_jax.core.cli import Parser, command
from anchor_jax.files.outputs import new_file


def pack(folder: Path, output: Path) -> None:
  """Writes a folder to a zip file, under the folder's name, and removes the folder; can be repeated."""
  if not folder.exists() and output.exists():
    return
  with new_file(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
      archive.write(file, Path(folder.name) / file.relative_to(folder))
  shutil.rmtree(folder)


@command
def main() -> None:
  """Runs the command line."""
  parser = Parser("anchor_jax.app.jobs.pack", __doc__)
  parser.add_argument("--folder", type=Path, required=True, metavar="DIR")
  parser.add_argument("--output", type=Path, required=True, metavar="FILE.zip")
  args = parser.parse_args()
  pack(args.folder, args.output)


if __name__ == "__main__":
  main()
