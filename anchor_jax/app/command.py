"""The page: film yourself, watch how that is learned, and make videos of yourself in any motion.

Example:
  python -m anchor_jax.app

It needs the extra `app` (`make app` installs it and starts the page), and films need the landmark model (`make
landmarks`). Everything is kept in --folder, one folder a person; what runs when the page is stopped goes on at its next
start. Only this machine can reach it, unless --host opens it to a network: then each browser sees its own people alone.
Behind a proxy, --site names the address that browsers show; each browser still has its own session.
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


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.app", __doc__)
  parser.add_argument("--folder", type=Path, default=Path("runs/app"), metavar="DIR", help="of all people")
  parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: 127.0.0.1)")
  parser.add_argument("--port", type=int, default=7860)
  parser.add_argument(
    "--site",
    action="append",
    default=[],
    metavar="URL",
    help="of a proxy before it, such as https://anchor.example.org",
  )
  parser.add_argument("--megabytes", type=int, default=500, help="largest upload (default 500)")
  parser.add_argument("--seconds", type=int, default=600, help="longest film (default 600)")
  parser.add_argument("--gigabytes", type=float, default=100, help="all that the page may keep (default 100)")
  parser.add_argument("--smoke", action="store_true", help="tiny numbers: a try of the page (results are not pretty)")
  args = parser.parse_args()
  if not 1 <= args.port <= 65535:
    raise UserError(f"--port={args.port}: 1 to 65535")
  if args.megabytes < 1 or args.seconds < 1:
    raise UserError(f"--megabytes={args.megabytes} --seconds={args.seconds}: both must be at least 1")
  if not args.gigabytes > 0:
    raise UserError(f"--gigabytes={args.gigabytes}: must be more than 0")
  if not args.host:
    raise UserError("--host= names no address: leave it out, or give 0.0.0.0 to open the page to the network")
  sites = [site_of(site) for site in args.site]
  if find_spec("gradio") is None:
    raise UserError("the page needs Gradio: run `make app`, or pip install 'anchor-jax[app]'")
  from anchor_jax.app.access.uploads import Limits
  from anchor_jax.app.jobs.workshop import Workshop

  limits = Limits(megabytes=args.megabytes, seconds=args.seconds, gigabytes=args.gigabytes)
  shop = Workshop(args.folder, limits, args.smoke)
  with tempfile.TemporaryDirectory(prefix="anchor-page-") as own:
    # Before Gradio is imported: no file of ours goes through its folder, and it sends no analytics.
    os.environ |= {"GRADIO_TEMP_DIR": own, "GRADIO_ANALYTICS_ENABLED": "False"}
    from anchor_jax.app.server import listen, serve

    with listen(args.host, args.port) as place:
      signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what runs is ended before
      shop.start()
      try:
        serve(shop, place, args.host, network=bool(sites) or not is_local(args.host), sites=sites)
      finally:
        shop.stop()
