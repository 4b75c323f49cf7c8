"""For tests that need the files of the landmark networks, which `make test` fetches where it can, or a stand-in."""

import types

import pytest

from anchor_jax.films import poses
from anchor_jax.landmarks import model
from anchor_jax.landmarks.networks.files import landmarks_installed

needs_landmarks = pytest.mark.skipif(not landmarks_installed(), reason="no landmark networks: run `make landmarks`")


def use_networks(monkeypatch: pytest.MonkeyPatch, networks: type) -> None:
  """Lets films be searched by a stand-in for `Holistic`, without any file; no faces of other people are found."""
  for module in (poses, model):
    monkeypatch.setattr(module, "require_landmarks", lambda *_: None)
  monkeypatch.setattr(model, "read_models", lambda *_: {"face_detection_full_range": b""})
  monkeypatch.setattr(model, "LiteNetwork", lambda content: None)
  monkeypatch.setattr(model, "Holistic", networks)
  monkeypatch.setattr(model, "Detector", lambda *_: types.SimpleNamespace(find=lambda *_: []))
