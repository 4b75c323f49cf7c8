"""Brings diffusers and transformers folders in, and takes trained people out to them.

Examples:
  python -m anchor_jax.convert from-diffusers sd15 models/sd15 --image-encoder=clip-vit-base-patch32 --head=sd15-inpaint
  python -m anchor_jax.train --config=configs/person.py:body --workdir=runs/ana --config.init=models/sd15
  python -m anchor_jax.convert to-diffusers runs/ana ana --dtype=float16
  python -m anchor_jax.convert lora runs/ana ana_lora        # a person trained with --config.lora.rank=8, in a few MB

SRC is a pipeline's folder (unet/, vae/, scheduler/, image_encoder/, text_encoder/, controlnet/) or one model's; to
go out also a --workdir of training. Nothing is written unless every key of every model fits.
"""

import argparse
from pathlib import Path

import numpy as np

from anchor_jax.architecture import CLIPVisionConfig, UNetConfig
from anchor_jax.cli import command
from anchor_jax.errors import UserError
from anchor_jax.files import new_folder
from anchor_jax.store import names
from anchor_jax.store.adapters import FILE as ADAPTERS
from anchor_jax.store.diffusers import DTYPES, load_config, load_tensors, save_tensors
from anchor_jax.store.folders import NULL_CONTEXT, ROLES, ModelFolder, complete, open_folder, write_models
from anchor_jax.store.tensors import Tensor


def from_diffusers(
  source: Path,
  target: Path,
  image_encoder: Path | None = None,
  controlnet: Path | None = None,
  head: Path | None = None,
  make_controlnet: bool = True,
  make_head: bool = False,
  stem_widths: tuple[int, ...] = (16, 32, 96, 256),
  dtype: str | None = None,
) -> ModelFolder | None:
  """Writes the folder of models that --config.init takes; returns what is in it (None for a single model).

  Args:
    source: a pipeline's folder, or one model's.
    target: made, or replaced if it holds models already.
    image_encoder, controlnet: folders of those models, where the pipeline has none.
    head: an inpainting pipeline (or UNet) for the head.
    make_controlnet: make a pose branch from each UNet that has none.
    make_head: make a head UNet from the body's.
    stem_widths: of pose branches made.
    dtype: "float32", "float16", "bfloat16", or None for the types in the files.

  Raises:
    UserError: something cannot be read; all missing, unexpected and mis-shaped keys are named, nothing is written.
  """
  _check_target(source, target)
  if (source / "config.json").exists():
    config = load_config(source)
    tensors = load_tensors(source, config)
    with new_folder(target) as folder:
      save_tensors(folder, config, tensors, dtype)
    return None
  pipeline = open_folder(source)
  for role, place in (("image_encoder", image_encoder), ("controlnet", controlnet)):
    if place is not None:
      config = load_config(place, ROLES[role])
      pipeline.models[role] = (config, load_tensors(place, config))
  if head is not None:
    place = head if (head / "config.json").exists() else head / "unet"
    config = load_config(place, UNetConfig)
    if config.in_channels == config.out_channels:
      raise UserError(f"{place} has {config.in_channels} input channels: give an inpainting UNet, or --make-head")
    pipeline.models["head/unet"] = (config, load_tensors(place, config))
  complete(pipeline, make_controlnet, make_head, stem_widths)
  with new_folder(target) as folder:
    write_models(folder, pipeline, dtype)
  return pipeline


def to_diffusers(
  source: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest", base: str = ""
) -> ModelFolder | None:
  """Writes folders that diffusers and transformers load, from a workdir, a folder of models or one model.

  Args:
    source: where the weights are.
    target: made, or replaced if it holds models already.
    weights: "ema" for the averaged ones of a workdir where there are any, "raw" for the others.
    dtype: as in `from_diffusers`.
    step: of a workdir: newest, best or a number.
    base: the weights that adapters change, where they aren't those that training started from.

  Raises:
    UserError: as in `from_diffusers`.
  """
  if not _trained_parts(source):
    return from_diffusers(source, target, make_controlnet=False, dtype=dtype)
  _check_target(source, target)
  pipeline = _of_workdir(source, weights, step, base)
  with new_folder(target) as folder:
    write_models(folder, pipeline, dtype)
  return pipeline


def to_adapters(
  workdir: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest"
) -> list[str]:
  """Writes what a workdir's parts learned as adapters, which is all of a person but the networks they change.

  Args:
    workdir: of runs with config.lora.rank.
    target: made, or replaced if it holds adapters already.
    weights, dtype, step: as in `to_diffusers`.

  Returns:
    the parts.

  Raises:
    UserError: no such run, or `target` holds something else.
  """
  from anchor_jax.store.weights import CheckpointChoice, write_adapters

  _check_target(workdir, target)
  parts = [part for part in _trained_parts(workdir) if part != "vae"]
  if not parts:
    raise UserError(f"{workdir} holds no trained body or head: give the --workdir of a run with --config.lora.rank=N")
  with new_folder(target) as folder:
    for part in parts:
      write_adapters(workdir, part, folder, CheckpointChoice(averaged=weights == "ema", step=step), dtype or "float32")
  return parts


def _trained_parts(folder: Path) -> list[str]:
  """The parts of a workdir, or of a folder of adapters."""
  parts = ("vae", "body", "head")
  return [part for part in parts if any((folder / part / name).exists() for name in ("checkpoints", ADAPTERS))]


def _of_workdir(workdir: Path, weights: str, step: str, base: str) -> ModelFolder:
  from anchor_jax.store.weights import CheckpointChoice, read_part  # orbax, which the other ways do without

  pipeline = ModelFolder({}, {})
  for part in _trained_parts(workdir):
    stored = read_part(workdir, part, CheckpointChoice(weights == "ema", step, base))
    model, trained = stored.config.model, stored.weights
    for role in ROLES:
      if role in trained:
        place = f"{part}/{role}" if role in ("unet", "controlnet") else role
        tensors = {path: Tensor.of(leaf) for path, leaf in names.flatten(trained[role]).items()}
        pipeline.models[place] = (getattr(model, role), tensors)
    if "null_context" in trained:
      pipeline.null_context = Tensor.of(np.asarray(trained["null_context"]))
    pipeline.schedules["scheduler"] = model.schedule
  return pipeline


def _check_target(source: Path, target: Path) -> None:
  """Refuses a target whose replacement would take something else with it."""
  if not source.is_dir():
    raise UserError(f"no folder {source}")
  inside, outside = target.absolute().resolve(), source.absolute().resolve()
  if inside == outside or outside.is_relative_to(inside):
    raise UserError(f"{target} holds what is to be converted; choose another folder")
  known = {*ROLES, "scheduler", "body", "head", NULL_CONTEXT, "config.json"}
  others = [p.name for p in target.glob("*") if p.name not in known and p.suffix != ".safetensors"]
  trained = [name for name in ("vae", "body", "head") if (target / name / "checkpoints").exists()]
  if trained:
    raise UserError(f"{target} is a workdir with a trained {trained[0]}; choose a new folder")
  if others:
    raise UserError(f"{target} holds {others[0]!r}, which is no model; choose a new folder")


def _summary(target: Path, pipeline: ModelFolder | None) -> str:
  if pipeline is None:
    return f"wrote {target}"
  lines = [f"wrote {target}: {', '.join([*pipeline.models, *pipeline.schedules])}"]
  if pipeline.null_context is not None:
    lines[0] += ", the null context"
  if pipeline.left_out:
    lines.append(f"left out, not needed here: {', '.join(pipeline.left_out)}")
  if not any(isinstance(config, CLIPVisionConfig) for config, _ in pipeline.models.values()):
    lines.append("no image tower is there: training makes a small one anew; give --image-encoder=DIR for CLIP's")
  return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    "python -m anchor_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  ways = parser.add_subparsers(dest="way", required=True, metavar="from-diffusers | to-diffusers | lora")
  into, out, few = (ways.add_parser(name) for name in ("from-diffusers", "to-diffusers", "lora"))
  for way in (into, out, few):
    way.add_argument("source", type=Path, metavar="SRC")
    way.add_argument("target", type=Path, metavar="DST")
    way.add_argument("--dtype", choices=sorted(DTYPES), help="type of the weights written (default: as stored)")
  into.add_argument("--image-encoder", type=Path, metavar="DIR", help="CLIP's image tower, or a whole CLIP model")
  into.add_argument("--controlnet", type=Path, metavar="DIR", help="the body's pose branch")
  into.add_argument("--head", type=Path, metavar="DIR", help="an inpainting pipeline, whose UNet the head starts from")
  into.add_argument("--make-head", action="store_true", help="make the head's UNet from the body's")
  into.add_argument("--no-controlnet", action="store_true", help="do not make pose branches from UNets without one")
  into.add_argument("--stem", default="16,32,96,256", metavar="N,N,..", help="stem widths of pose branches made")
  for way in (out, few):
    way.add_argument("--weights", choices=("ema", "raw"), default="ema", help="a workdir's averaged or raw weights")
    way.add_argument("--checkpoint-step", default="newest", metavar="STEP", help="a workdir's newest, best or a number")
  out.add_argument("--base", default="", metavar="DIR", help="the weights that adapters change (default: as trained)")
  return parser


@command
def main() -> None:
  """The command line."""
  args = _parser().parse_args()
  if args.way == "to-diffusers":
    pipeline = to_diffusers(args.source, args.target, args.weights, args.dtype, args.checkpoint_step, args.base)
  elif args.way == "lora":
    parts = to_adapters(args.source, args.target, args.weights, args.dtype, args.checkpoint_step)
    size = sum(file.stat().st_size for file in args.target.rglob("*") if file.is_file())
    print(f"wrote {args.target}: adapters of {' and '.join(parts)}, {size / 1e6:.1f} MB")
    return
  else:
    try:
      stem = tuple(int(width) for width in args.stem.split(","))
    except ValueError:
      raise UserError(f"--stem={args.stem}: give widths like 16,32,96,256") from None
    pipeline = from_diffusers(
      args.source,
      args.target,
      args.image_encoder,
      args.controlnet,
      args.head,
      not args.no_controlnet,
      args.make_head,
      stem,
      args.dtype,
    )
  print(_summary(args.target, pipeline))


if __name__ == "__main__":
  main()
