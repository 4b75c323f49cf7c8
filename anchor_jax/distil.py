"""Makes a light decoder, with which `generate --decoder` decodes in a tenth of the time, for another autoencoder.

Example:
  python -m anchor_jax.distil --checkpoint=runs/pretrain --data=data/people --output=my_decoder
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --decoder=my_decoder --output=ana_dances.mp4

One comes with the package (--decoder=light), for the shipped autoencoder and so for everybody whose training began with
--config.init=studio. Any prepared frames of people will do; those of many are better than those of one.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from anchor_jax.core.cli import Parser, command, person_flags, say
from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import prepare_parent, refuse_overwriting
from anchor_jax.files.shipped import folder_of
from anchor_jax.formats.roles import LIGHT_DECODER, PERSON_PARTS

if TYPE_CHECKING:
  from anchor_jax.config.pixels import LightDecoderConfig


def parse() -> argparse.Namespace:
  """The flags."""
  parser = Parser("anchor_jax.distil", __doc__)
  person_flags(parser)
  parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a prepared folder")
  parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets light_decoder/")
  parser.add_argument("--steps", type=int, default=6000)
  parser.add_argument("--frames", type=int, default=2880, help="of the prepared folder, held in memory")
  parser.add_argument("--widths", default="32,64", metavar="N,N,..", help="channels of each level, finest first")
  parser.add_argument("--layers", default="1,1", metavar="N,N,..", help="residual blocks of each level, finest first")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  for name in ("steps", "frames"):
    if getattr(args, name) < 1:
      raise UserError(f"--{name}={getattr(args, name)}: at least 1")
  for name in ("widths", "layers"):
    try:
      setattr(args, name, tuple(int(number) for number in getattr(args, name).split(",")))
    except ValueError:
      raise UserError(f"--{name}={getattr(args, name)}: give whole numbers, such as 32,64") from None
  return args


@command
def main() -> None:
  """The command line."""
  args = parse()
  from anchor_jax.config.pixels import LightDecoderConfig

  config = LightDecoderConfig(block_out_channels=args.widths, layers_per_block=args.layers)
  output = args.output / LIGHT_DECODER
  refuse_overwriting(output, [args.data, *(folder_of(args.checkpoint) / part for part in PERSON_PARTS)])
  prepare_parent(output)
  with locked(output):
    make(args, config)


def make(args: argparse.Namespace, config: "LightDecoderConfig") -> None:
  """Makes the decoder of the flags and writes it."""
  # JAX takes seconds to import: everything above does without it.
  from anchor_jax.data.records import open_prepared
  from anchor_jax.formats.folders import check_models_target
  from anchor_jax.store.light import write_light_decoder
  from anchor_jax.store.weights import CheckpointChoice, parts_in, read_part
  from anchor_jax.training.distil import distil

  check_models_target(args.output / LIGHT_DECODER)
  parts = parts_in(args.checkpoint)
  if not parts:
    raise UserError(f"{args.checkpoint} holds no trained part: give a --workdir of training")
  part = read_part(args.checkpoint, parts[0], CheckpointChoice(step=args.checkpoint_step, base=args.base))
  light, measured = distil(
    part.networks, part.weights, open_prepared(args.data), config, args.steps, frames=args.frames, seed=args.seed
  )
  write_light_decoder(args.output, light)
  say(f"wrote {args.output}: PSNR {', '.join(f'{name} {value:.2f} dB' for name, value in measured.items())}")


if __name__ == "__main__":
  main()
