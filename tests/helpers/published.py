"""Random weights of published networks."""

import numpy as np


def alexnet(channels=4, seed=0):
  """Random LPIPS weights with AlexNet's layers and few channels."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
  layers, before, tensors = {1: (0, 11), 2: (3, 5), 3: (6, 3), 4: (8, 3), 5: (10, 3)}, 3, {}
  for part, (number, side) in layers.items():
    tensors[f"net.slice{part}.{number}.weight"] = draw(channels, before, side, side)
    tensors[f"net.slice{part}.{number}.bias"] = np.full(channels, 0.1, np.float32)
    tensors[f"lin{part - 1}.model.1.weight"] = np.full((1, channels, 1, 1), 0.25, np.float32)
    before = channels
  return tensors
