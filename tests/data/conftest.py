"""The people of tests/helpers, by request."""

import pytest
from people import make_posed_frames, make_track


@pytest.fixture(scope="session")
def posed_frames():
  return make_posed_frames


@pytest.fixture(scope="session")
def standing_track():
  return make_track
