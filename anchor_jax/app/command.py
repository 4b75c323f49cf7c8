"""A web page: upload a film of yourself, watch training, and make videos of yourself in any motion.

Example:
  python -m anchor_jax.app

It needs the extra `app` (`make app` installs it and starts the page), and the landmark model for films (`make
landmarks`). Everything is stored in --folder, one folder per person. Jobs that are interrupted when the page stops
resume at its next start. Only this machine can reach the page unless --host opens it to a network; then each browser
sees only its own people. Behind a proxy, --site is the address that browsers show.
"""

import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from anchor_jax.app.access.origins import is_local, site_of
from anchor_jax.core.cli import Parser, command
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import regular_file


@command
def main() -> None:
  """Runs the command line."""
  parser = Parser("anchor_jax.app", __doc__)
  parser.add_argument("--folder", type=Path, default=Path("runs/app"), metavar="DIR", help="where everything is stored")
  parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: 127.0.0.1)")
  parser.add_argument("--port", type=int, default=7860)
  parser.add_argument(
    "--site",
    action="append",
    default=[],
    metavar="URL",
    help="public address of a proxy in front of the page, such as https://anchor.example.org",
  )
  parser.add_argument("--megabytes", type=int, default=500, help="largest upload (default 500)")
  parser.add_argument("--seconds", type=int, default=600, help="longest film (default 600)")
  parser.add_argument("--gigabytes", type=float, default=100, help="total storage limit (default 100)")
  parser.add_argument(
    "--lpips",
    type=Path,
    metavar="FILE",
    help="weights of LPIPS (`convert lpips`), for a sharper person from an uploaded film (`make app` fetches them)",
  )
  parser.add_argument("--smoke", action="store_true", help="tiny settings to try the page quickly, with poor results")
  args = parser.parse_args()
  if not 1 <= args.port <= 65535:
    raise UserError(f"--port={args.port}: 1 to 65535")
  if args.megabytes < 1 or args.seconds < 1:
    raise UserError(f"--megabytes={args.megabytes} --seconds={args.seconds}: both must be at least 1")
  if not args.gigabytes > 0:
    raise UserError(f"--gigabytes={args.gigabytes}: must be above 0")
  if not args.host:
    raise UserError("--host= names no address: leave it out, or give 0.0.0.0 to open the page to the network")
  sites = [site_of(site) for site in args.site]
  if find_spec("gradio") is None:
    raise UserError("the page needs Gradio: run `make app`, or pip install 'anchor-jax[app]'")
  from anchor_jax.app.access.uploads import Limits
  from anchor_jax.app.jobs.workshop import Workshop

  limits = Limits(megabytes=args.megabytes, seconds=args.seconds, gigabytes=args.gigabytes)
  if args.lpips is not None:
    regular_file(args.lpips, "file of LPIPS's weights")
  shop = Workshop(args.folder, limits, args.smoke, args.lpips and args.lpips.absolute())
  with tempfile.TemporaryDirectory(prefix="anchor-page-") as temporary:
    # Set before Gradio is imported: keep its files out of the shared temporary folder, and turn analytics off.
    os.environ |= {"GRADIO_TEMP_DIR": temporary, "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ.setdefault("ANCHOR_JAX_TRACKS", "")  # jobs keep nothing of films beyond what their people see and delete
    from anchor_jax.app.server import listen, serve

    with listen(args.host, args.port) as listener:
      signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # runs `finally`, which ends the job
      shop.start()
      try:
        serve(shop, listener, args.host, network=bool(sites) or not is_local(args.host), sites=sites)
      finally:
        shop.stop()
