"""The page: a person films herself, watches how she is learned, and makes videos of her in any motion.

Example:
  python -m anchor_jax.app

It needs the extra `app` (`make app` installs it and starts the page), and films need the landmark model (`make
landmarks`). Everything is kept in --folder, one folder a person; what runs when the page is stopped goes on at its next
start. Only this machine can reach it, unless --host opens it to a network: then each browser sees its own people alone.
"""

import ipaddress
import os
from importlib.util import find_spec
from pathlib import Path

from anchor_jax.cli import Parser, command
from anchor_jax.errors import UserError


def is_local(host: str) -> bool:
  """Whether an address is this machine's own, which no other can reach."""
  if host == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.app", __doc__)
  parser.add_argument("--folder", type=Path, default=Path("runs/app"), metavar="DIR", help="of all people")
  parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: 127.0.0.1)")
  parser.add_argument("--port", type=int, default=7860)
  parser.add_argument("--megabytes", type=int, default=500, help="largest upload (default 500)")
  parser.add_argument("--seconds", type=int, default=600, help="longest film (default 600)")
  parser.add_argument("--smoke", action="store_true", help="tiny numbers: a try of the page (results are not pretty)")
  args = parser.parse_args()
  if not 1 <= args.port <= 65535:
    raise UserError(f"--port={args.port}: 1 to 65535")
  if args.megabytes < 1 or args.seconds < 1:
    raise UserError(f"--megabytes={args.megabytes} --seconds={args.seconds}: both must be at least 1")
  if find_spec("gradio") is None:
    raise UserError("the page needs Gradio: run `make app`, or pip install 'anchor-jax[app]'")
  from anchor_jax.app.uploads import Limits
  from anchor_jax.app.workshop import Workshop

  shop = Workshop(args.folder, Limits(megabytes=args.megabytes, seconds=args.seconds), args.smoke)
  # Before Gradio is imported: uploads stay in our folder, and nothing is told to anybody. Gradio tells browsers where
  # it puts an upload: from inside the folder, that is no path of this machine.
  os.chdir(shop.folder)
  os.environ |= {"GRADIO_TEMP_DIR": shop.uploads.name, "GRADIO_ANALYTICS_ENABLED": "False"}
  from anchor_jax.app.server import serve

  shop.start()
  try:
    serve(shop, args.host, args.port, network=not is_local(args.host))
  finally:
    shop.stop()
