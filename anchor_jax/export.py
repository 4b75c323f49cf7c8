"""Writes a trained person as a bundle that generates with jax, numpy, safetensors and flatbuffers alone.

Example:
  python -m anchor_jax.export --checkpoint=runs/ana --output=ana_bundle
  python ana_bundle/generate.py motion.npz frames.npz        # motion.npz: pose [T H W 3], surface [T H W 3]; uint8

The bundle holds the weights (safetensors), the programs (StableHLO, for every platform named) and config.json, which
names the versions that made it and the hash of each file. Programs are exported on the CPU for every platform.

It also holds a picture of the person and, where the networks see them, the texture and the room of the film that she
was trained on, or of the one that --appearance names: other clothes, or a person straight after `prepare`
(--checkpoint=studio).
"""

import argparse
from pathlib import Path

from anchor_jax.cli import Parser, command, person_flags
from anchor_jax.files import refuse_overwriting


def parse() -> argparse.Namespace:
  """The flags."""
  parser = Parser("anchor_jax.export", __doc__)
  person_flags(parser)
  parser.add_argument("--appearance", type=Path, metavar="PATH", help="a picture of the person, or a prepared folder")
  parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle")
  parser.add_argument("--platforms", default="cpu,cuda,tpu", help="what it can run on (default: cpu,cuda,tpu)")
  return parser.parse_args()


@command
def main() -> None:
  """The command line."""
  args = parse()
  inputs = [args.checkpoint / part for part in ("body", "head")]
  inputs = inputs if args.checkpoint != args.output else [args.checkpoint]
  refuse_overwriting(args.output, [*inputs, *filter(None, [args.appearance])])
  # JAX takes seconds to import: everything above does without it.
  import jax

  from anchor_jax.person import load, read_reference
  from anchor_jax.store.bundle import check_target

  # An accelerator is not needed, and would make the networks choose kernels that run there alone.
  jax.config.update("jax_platforms", "cpu")
  platforms = tuple(name.strip() for name in args.platforms.split(",") if name.strip())
  check_target(args.output, platforms)  # before a person is read, which takes longer
  reference = None if args.appearance is None else read_reference(args.appearance)
  person = load(args.checkpoint, step=args.checkpoint_step, base=args.base)
  parts = person.export(args.output, platforms, reference)
  print(f"wrote {args.output}: {' and '.join(parts)} for {', '.join(platforms)}")


if __name__ == "__main__":
  main()
