"""Motions with names: those that the pages offer."""

from typing import NamedTuple


class NamedPerformance(NamedTuple):
  """A motion of the studio: what it is called, and the seed for `make_motion`."""

  label: str
  seed: int


# Seeds from two million on are kept out of the training of the shipped weights, as are people from one million on.
MOTIONS = {
  "calm": NamedPerformance("Calm talk", 2_000_037),
  "lively": NamedPerformance("Lively talk", 2_000_022),
  "explaining": NamedPerformance("Explaining", 2_000_057),
  "wide": NamedPerformance("Wide gestures", 2_000_033),
}
DRIVER = 1_000_020  # whose body makes them
