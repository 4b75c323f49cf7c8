"""Distils a light decoder for an autoencoder; `generate --decoder` decodes in a tenth of the time with it.

Example:
  python -m anchor_jax.distil --checkpoint=runs/pretrain --data=data/people --output=my_decoder
  python -m anchor_jax.generate --checkpoint=runs/ana --motion=dance.mp4 --decoder=my_decoder --output=ana_dances.mp4

The package has one (--decoder=light) for the shipped autoencoder: it suits every person trained from
--config.init=studio. Any prepared frames of people will do; many people are better than one.
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
  parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="light_decoder/ is written there")
  parser.add_argument("--steps", type=int, default=6000)
  parser.add_argument("--frames", type=int, default=2880, help="number of frames to hold in memory")
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
      raise UserError(f"--{name}={getattr(args, name)}: give integers, such as 32,64") from None
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
    distil_from_flags(args, config)


def distil_from_flags(args: argparse.Namespace, config: "LightDecoderConfig") -> None:
  """Distils the light decoder that the flags describe and writes it."""
  # JAX takes seconds to import: nothing above needs it.
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
  light, measures = distil(
    part.networks, part.weights, open_prepared(args.data), config, args.steps, frames=args.frames, seed=args.seed
  )
  write_light_decoder(args.output, light)
  say(f"wrote {args.output}: PSNR {', '.join(f'{name} {value:.2f} dB' for name, value in measures.items())}")


if __name__ == "__main__":
  main()
