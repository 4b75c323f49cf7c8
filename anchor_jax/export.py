"""Writes a trained person as a bundle that needs only jax, numpy, safetensors and flatbuffers, or as a web page.

Example:
  python -m anchor_jax.export --checkpoint=runs/ana --output=ana_bundle
  python ana_bundle/generate.py motion.npz frames.npz        # motion.npz: pose [T H W 3], surface [T H W 3]; uint8

  npm pack onnxruntime-web @mediapipe/holistic               # once; for --web, which needs the extra `web`
  python -m anchor_jax.export --checkpoint=runs/ana --web --onnxruntime=onnxruntime-web-1.30.0.tgz \
    --landmarks=mediapipe-holistic-0.5.1675471629.tgz --output=ana_page
  python ana_page/serve.py                                   # or any other server of files

The bundle holds the weights (safetensors), the programs (StableHLO, for every platform named) and config.json with
package versions and file hashes. Programs are exported on the CPU for every platform.

It also holds the reference image and, if the networks use one, the texture: of the film that the person was trained on,
or of the one that --appearance names, for other clothes or for a person straight after `prepare`
(--checkpoint=studio).

The page (--web) is a folder of static files with which a browser draws the body, frame by frame, in the motions of
--motion, or else of the studio, and from a camera (--landmarks); see docs/web.md. Anyone with the folder has the
person's weights.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from anchor_jax.core.cli import Parser, command, person_flags, say
from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import prepare_parent, refuse_overwriting
from anchor_jax.files.shipped import folder_of

if TYPE_CHECKING:
  from anchor_jax.inference.motions import OpenMotion
  from anchor_jax.inference.person import Person, Reference

_WEB_ONLY = ("onnxruntime", "landmarks", "motion", "seconds", "decoder")


def parse() -> argparse.Namespace:
  """Returns the flags."""
  parser = Parser("anchor_jax.export", __doc__)
  person_flags(parser)
  parser.add_argument("--appearance", type=Path, metavar="PATH", help="a reference image, or a prepared folder")
  parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the bundle or page")
  parser.add_argument(
    "--platforms", default="cpu,cuda,tpu", help="platforms the bundle runs on (default: cpu,cuda,tpu)"
  )
  parser.add_argument("--web", action="store_true", help="write a page for browsers instead of a bundle")
  web = parser.add_argument_group("with --web")
  web.add_argument(
    "--onnxruntime", type=Path, metavar="PATH",
    help="the file that `npm pack onnxruntime-web` leaves, or the package's folder (default: in node_modules)",
  )  # fmt: skip
  web.add_argument(
    "--landmarks", type=Path, metavar="PATH",
    help="the same for @mediapipe/holistic, the landmark model, with which the page also follows a camera",
  )  # fmt: skip
  web.add_argument(
    "--motion", type=Path, action="append", metavar="PATH",
    help="a motion to choose on the page, as for `generate`; may be repeated (default: four of the studio)",
  )  # fmt: skip
  web.add_argument("--seconds", type=float, metavar="N", help="maximum length of each motion (default: 4)")
  web.add_argument(
    "--decoder", metavar="NAME",
    help="light, exact, or the folder of a light decoder (default: light, if it fits the autoencoder)",
  )  # fmt: skip
  args = parser.parse_args()
  for name in () if args.web else _WEB_ONLY:
    if getattr(args, name) is not None:
      raise UserError(f"--{name} is for --web")
  args.seconds = 4.0 if args.seconds is None else args.seconds
  if not 0 < args.seconds <= 600:
    raise UserError(f"--seconds={args.seconds:g}: give seconds above 0, at most 600")
  return args


@command
def main() -> None:
  """Runs the command."""
  args = parse()
  person = folder_of(args.checkpoint)
  inputs = [person / part for part in ("body", "head")] if person != args.output else [person]
  files = [args.appearance, args.onnxruntime, args.landmarks, *(args.motion or ())]
  refuse_overwriting(args.output, [*inputs, *filter(None, files)])
  prepare_parent(args.output)
  with locked(args.output):
    write(args)


def write(args: argparse.Namespace) -> None:
  """Writes the bundle or the page."""
  # JAX takes seconds to import, and nothing above needs it.
  import jax

  from anchor_jax.inference.person import load, read_reference
  from anchor_jax.store.bundle import check_bundle_target

  # On an accelerator the networks would choose kernels that run only there.
  jax.config.update("jax_platforms", "cpu")
  platforms = tuple(name.strip() for name in args.platforms.split(",") if name.strip())
  motions = []
  # Before the person is read, which takes longer.
  if args.web:
    from anchor_jax.web.folder import check_web
    from anchor_jax.web.motions import open_motions

    check_web(args.output, args.onnxruntime, args.landmarks)
    motions = open_motions(args.motion or ())
  else:
    check_bundle_target(args.output, platforms)
  reference = None if args.appearance is None else read_reference(args.appearance)
  person = load(args.checkpoint, step=args.checkpoint_step, base=args.base, head=False if args.web else None)
  if args.web:
    write_page(args, person, reference, motions)
    return
  parts = person.export(args.output, platforms, reference)
  say(f"wrote {args.output}: {' and '.join(parts)} for {', '.join(platforms)}")


def write_page(
  args: argparse.Namespace, person: "Person", reference: "Reference | None", opened: "list[OpenMotion]"
) -> None:
  """Writes the web page."""
  from anchor_jax.web.folder import write_web
  from anchor_jax.web.motions import named_motions, studio_motions

  try:
    person = person.with_decoder(args.decoder or "light")
  except UserError:
    if args.decoder:
      raise
    say("the light decoder does not fit the autoencoder: using the exact decoder, which is slower")
  measures = person.measures if reference is None or reference.measures is None else reference.measures
  if opened:
    motions = named_motions(opened, person.size, args.seconds, measures)
  else:
    motions = studio_motions(person.size, args.seconds)
  say("converting the networks, which takes a few minutes", flush=True)
  write_web(args.output, person.body, motions, reference, args.onnxruntime, args.landmarks, measures)
  size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file()) / 1e6
  say(f"wrote {args.output} ({size:.0f} MB): python {args.output / 'serve.py'}, and open the address it prints")


if __name__ == "__main__":
  main()
