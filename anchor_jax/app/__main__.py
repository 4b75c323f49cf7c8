"""`python -m anchor_jax.app`; see command.py."""

from anchor_jax.app.command import main

if __name__ == "__main__":  # rendering spawns processes that import this module
  main()
