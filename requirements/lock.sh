#!/usr/bin/env bash
# Pins every requirements file anew from pyproject.toml (for maintainers: `make lock`). One version of each package
# serves every Python from 3.11 on, and the same version stands in all the files, so that they can be installed on
# top of each other. No index address is written into them.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}

resolve() { # [FLAGS...]: the pins of pyproject.toml, on stdout
  "$uv" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-header --no-annotate \
    "$@" pyproject.toml
}

pin() { # NAME [FLAGS...]: requirements/NAME.txt
  local name=$1
  shift
  {
    echo "# Made by requirements/lock.sh from pyproject.toml; not edited by hand."
    resolve "$@" | sed '/^#/d'
  } > "requirements/$name.partial"
  mv "requirements/$name.partial" "requirements/$name.txt"
}

pin cpu
pin dev --extra dev --constraint requirements/cpu.txt
pin tpu --extra tpu --constraint requirements/cpu.txt
pin cuda --extra cuda --constraint requirements/cpu.txt
pin identity --extra identity --constraint requirements/cpu.txt
# Torch names the libraries of its CUDA build itself, and its CPU build needs none: they stay out of the file.
cuda_libraries=()
for package in $(resolve --extra parity | sed -nE 's/^((nvidia|cuda)-[a-z0-9-]+|triton)==.*/\1/p'); do
  cuda_libraries+=(--no-emit-package "$package")
done
pin parity --extra parity --extra dev --constraint requirements/dev.txt "${cuda_libraries[@]}"
# The page, and what its test needs beside it.
pin app --extra app --constraint requirements/parity.txt
pin browser --extra app --extra browser --extra dev --constraint requirements/parity.txt
# The generator of the API reference.
pin docs --extra docs --constraint requirements/parity.txt
# The converter for browsers, and what its test needs beside it.
pin web --extra web --extra browser --extra dev --constraint requirements/parity.txt
