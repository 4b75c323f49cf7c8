"""Named motions, for the pages of app/ and web/."""

from typing import NamedTuple


class NamedPerformance(NamedTuple):
  """A motion's label, and its seed for `make_motion`."""

  label: str
  seed: int


# Held out: the shipped weights are not trained on motions from seed 2,000,000 on, nor on people from 1,000,000 on.
MOTIONS = {
  "calm": NamedPerformance("Calm talk", 2_000_037),
  "lively": NamedPerformance("Lively talk", 2_000_022),
  "explaining": NamedPerformance("Explaining", 2_000_057),
  "wide": NamedPerformance("Wide gestures", 2_000_033),
}
DRIVER = 1_000_020  # identity of the person who performs them
