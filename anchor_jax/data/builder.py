"""The tensorflow-datasets builder that writes the records of a prepared folder."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.record_fields import IMAGES, SPLIT

VERSION = tfds.core.Version("1.0.0")


def features_of(size: FrameSize) -> tfds.features.FeaturesDict:
  """The features of a record with frames of this size."""
  images = {
    name: tfds.features.Image(shape=(*size.shape, channels), encoding_format="png") for name, channels in IMAGES.items()
  }
  return tfds.features.FeaturesDict(
    {
      **images,
      "landmarks": tfds.features.Tensor(shape=(5, 2), dtype=np.float32),
      **{name: tfds.features.Scalar(np.int32) for name in ("person", "video", "index")},
    }
  )


class PreparedFrames(tfds.core.GeneratorBasedBuilder):
  """The builder of a prepared folder; `records.build` runs it."""

  VERSION = VERSION
  code_path = None  # nothing is downloaded: do not look for a list of checksums beside this file

  def __init__(self, records: Iterable[Mapping[str, Any]], size: FrameSize, **kwargs):
    """Takes an iterable of encoded records, which is consumed once."""
    self._records, self._size = records, size
    super().__init__(file_format="array_record", **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self, description="Frames of posed people.", features=features_of(self._size), disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self):
    yield from enumerate(self._records)


@contextlib.contextmanager
def same_bytes() -> Iterator[None]:
  """Context in which equal records are written as equal bytes, in every process.

  A record is a protobuf map, whose order differs between processes unless serialization is deterministic. The writer of
  tensorflow-datasets has no option for that, so its serializer is replaced.
  """
  original = ExampleSerializer.serialize_example
  ExampleSerializer.serialize_example = lambda self, example: self.get_tf_example(example).SerializeToString(
    deterministic=True
  )
  try:
    yield
  finally:
    ExampleSerializer.serialize_example = original
