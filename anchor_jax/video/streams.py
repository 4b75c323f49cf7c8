"""Which of the streams in a film file are the film: covers, thumbnails and commentaries are others."""

from typing import Any

from av.stream import Disposition

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PICTURES = ("mjpeg", "png", "bmp", "gif", "tiff", "webp")  # of covers and previews that no flag marks
_BESIDE = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.dependent


def film_stream(container: Any) -> Any | None:
  """Returns the moving picture of an open file: of several the default one, then the largest; None where there is none.

  Pictures that are attached (the cover of a song) are none; those in a picture's format beside a film's are taken last.
  """
  moving = [
    stream
    for stream in container.streams.video
    if not stream.disposition & _STILL and stream.codec_context is not None and stream.codec_context.width
  ]
  area = lambda stream: stream.codec_context.width * stream.codec_context.height
  filmed = lambda stream: stream.codec_context.name not in _PICTURES
  return max(moving, key=lambda stream: (filmed(stream), *_rank(stream), area(stream)), default=None)


def sound_stream(container: Any) -> Any | None:
  """Returns the sound of an open file: of several the default one, then the first; None where there is none."""
  return max(container.streams.audio, key=_rank, default=None)


def _rank(stream: Any) -> tuple[bool, bool]:
  return bool(stream.disposition & Disposition.default), not stream.disposition & _BESIDE
