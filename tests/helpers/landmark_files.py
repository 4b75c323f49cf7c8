"""For tests that need the landmark networks' files, which `make test` fetches where it can."""

import pytest

from anchor_jax.landmarks.networks.files import landmarks_installed

needs_landmarks = pytest.mark.skipif(not landmarks_installed(), reason="no landmark networks: run `make landmarks`")
