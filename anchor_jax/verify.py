"""Recomputes golden arrays of the reference implementation with this package's networks and sampler.

Example:
  python -m anchor_jax.verify shared/golden --output=computed.npz

GOLDEN_DIR holds golden.npz, golden.json and the weights in body/ and head/. Every array that the reference computed is
recomputed and compared. The exit code is 0 if all agree and 1 otherwise.
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path

from anchor_jax.core.cli import command
from anchor_jax.files.outputs import check_output_file, new_file, prepare_parent, refuse_overwriting


@command
def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    "python -m anchor_jax.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("golden", type=Path, metavar="GOLDEN_DIR")
  parser.add_argument("--output", type=Path, metavar="FILE.npz", help="write the computed arrays")
  args = parser.parse_args()
  if args.output is not None:
    refuse_overwriting(args.output, [args.golden])
    check_output_file("--output", args.output, (".npz",), _is_computed)
    prepare_parent(args.output)
  import jax
  import numpy as np

  from anchor_jax.evaluation.golden import verify

  if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")  # tolerances are for float32 on a CPU
  print(f"{'array':24}{'shape':>20}{'max error':>12}{'tolerance':>12}")
  rows, computed = [], {}
  for row, array in verify(args.golden):
    print(row)
    rows.append(row)
    if array is not None:
      computed[row.name] = array
  if args.output:
    with new_file(args.output, lock=True) as path, path.open("wb") as file:
      np.savez(file, **computed)
  failed = sum(not row.holds for row in rows)
  print(f"{len(rows) - failed} of {len(rows)} arrays hold")
  sys.exit(bool(failed))


def _is_computed(path: Path) -> bool:
  """Whether an .npz file was written by this command."""
  try:
    with zipfile.ZipFile(path) as file:
      return "null_context.npy" in file.namelist()
  except (OSError, ValueError, zipfile.BadZipFile):
    return False


if __name__ == "__main__":
  main()
