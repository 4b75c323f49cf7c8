#!/usr/bin/env bash
# Benchmarks this package on one accelerator, with the packages installed there and without a network:
#   [PYTHON=python3] [WHEELS=DIR] launch/accelerator.sh OUTPUT_DIR [--size=tiny] [--limit=540]
# WHEELS is a folder of wheels of missing packages (diffusers, ml_collections), at most 60 MB; they are unpacked to a
# temporary folder for this run, not installed.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [[ $# -lt 1 || "$1" == -* ]]; then
  echo "usage: [PYTHON=python3] [WHEELS=DIR] launch/accelerator.sh OUTPUT_DIR [--size=tiny]" >&2
  exit 2
fi
output="$1"
shift

python="${PYTHON:-}"
if [[ -z "$python" ]]; then
  python="$here/../.venv/bin/python"
  [[ -x "$python" ]] || python=python3
fi

if [[ -n "${WHEELS:-}" ]]; then
  size="$(du -sm "$WHEELS" | cut -f1)"
  if ((size > 60)); then
    echo "$WHEELS holds $size MB of wheels: at most 60 are allowed" >&2
    exit 2
  fi
  unpacked="$(mktemp -d)"
  trap 'rm -rf "$unpacked"' EXIT
  for wheel in "$WHEELS"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$unpacked"
  done
  export PYTHONPATH="$unpacked${PYTHONPATH:+:$PYTHONPATH}"
fi

if ! "$python" -c "import flax, jax, ml_collections, optax, orbax.checkpoint"; then
  echo "$python lacks the package named above: set PYTHON, or add it to WHEELS" >&2
  exit 2
fi
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
fi
"$python" "$here/accelerator.py" --output="$output" "$@"
