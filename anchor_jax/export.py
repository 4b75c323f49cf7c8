"""Writes a trained person as a bundle that generates with jax, numpy, safetensors and flatbuffers alone.

Example:
  python -m anchor_jax.export --checkpoint=runs/ana --output=ana_bundle
  python ana_bundle/generate.py motion.npz frames.npz        # motion.npz: pose [T H W 3], appearance [H W 3]; uint8

The bundle holds the weights (safetensors), the programs (StableHLO, for every platform named) and config.json, which
names the versions that made it and the hash of each file. Programs are exported on the CPU for every platform.
"""

import argparse
from pathlib import Path

import jax

from anchor_jax.cli import Parser, command
from anchor_jax.errors import UserError
from anchor_jax.person import Person, chosen_person, person_flags
from anchor_jax.store.bundle import check_target


def export_person(person: Person, output: Path, platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")) -> list[str]:
  """Writes a person as a bundle; returns the names of its parts.

  Args:
    person: body and, where there is one, head.
    output: created, or replaced where it holds a bundle already.
    platforms: some of `store.bundle.PLATFORMS`; the programs run on all of them.

  Raises:
    UserError: an unknown platform, or a folder that holds something else.
  """
  return person.export(output, platforms)


def parse() -> argparse.Namespace:
  """The flags."""
  parser = Parser("anchor_jax.export", __doc__)
  person_flags(parser)
  parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle")
  parser.add_argument("--platforms", default="cpu,cuda,tpu", help="what it can run on (default: cpu,cuda,tpu)")
  return parser.parse_args()


@command
def main() -> None:
  """The command line."""
  args = parse()
  if not args.checkpoint.is_dir():
    raise UserError(f"no folder {args.checkpoint}: --checkpoint takes the --workdir of a training run")
  # An accelerator is not needed, and would make the networks choose kernels that run there alone.
  jax.config.update("jax_platforms", "cpu")
  platforms = tuple(name.strip() for name in args.platforms.split(",") if name.strip())
  check_target(args.output, platforms)  # before a person is read, which takes longer
  parts = export_person(chosen_person(args), args.output, platforms)
  print(f"wrote {args.output}: {' and '.join(parts)} for {', '.join(platforms)}")


if __name__ == "__main__":
  main()
