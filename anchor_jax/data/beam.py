"""One prepared folder from thousands of films, as an Apache Beam pipeline: each film becomes one shard of records.

Each step handles one film, through files that all workers share: `find_landmarks` saves a film's landmarks,
`write_shard` writes its records, and `join` combines the shards. A film's numbers of people and clips depend on the
films before it, so all landmarks are found before the first shard is written. A repeated step writes the same bytes. A
film that can't be used is skipped and reported.
"""

import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.meta import META, meta_text
from anchor_jax.data.record_fields import FORMAT, SPLIT
from anchor_jax.data.records import PREPARED, PreparedSource, Recorder, check_prepared_target, write_preview
from anchor_jax.data.textures import store_textures
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import new_file, new_folder, partial_path, remove_files
from anchor_jax.films.clips import read_films, stretches_of
from anchor_jax.films.crops import crops_of
from anchor_jax.films.findings import FINDINGS_FILES, examine_once
from anchor_jax.films.poses import open_film, poses_of
from anchor_jax.films.report import film_facts
from anchor_jax.landmarks.proportions.measures import BodyMeasures, median_measures

NAME = "prepared_frames"  # tensorflow-datasets' name of the builder class that `records.build` uses


@dataclasses.dataclass(frozen=True)
class FilmTask:
  """A film to prepare.

  Attributes:
    path: the file.
    person: name of the person in it.
    output: the prepared folder; intermediate files are written beside it.
    options: `size`, `fps`, `landmarks`, `cut_off` and `person_at`, as `prepare` takes them.
  """

  path: str
  person: str
  output: str
  options: dict[str, Any]

  @property
  def work(self) -> Path:
    """The folder of intermediate files."""
    return partial_path(self.output, "looks")


@dataclasses.dataclass(frozen=True)
class FilmClips:
  """A film whose landmarks are found.

  Attributes:
    task: the film.
    clips: number of clips that it yields.
    error: why the film can't be used, else "".
  """

  task: FilmTask
  clips: int
  error: str = ""


def tasks_of(
  videos: Sequence[str | os.PathLike], output: str | os.PathLike, person: str | None, **options: Any
) -> list[FilmTask]:
  """Tasks for films, sorted by path, without duplicates.

  Without `person` each film shows a different person, named after the file, and its folder if two files have one name.
  """
  paths = sorted({str(Path(video).absolute()) for video in videos})
  stems = [Path(path).stem for path in paths]
  longer = [f"{Path(path).parent.name}/{stem}" for path, stem in zip(paths, stems)]
  names = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, longer)]
  return [FilmTask(path, person or name, str(Path(output).absolute()), options) for path, name in zip(paths, names)]


def find_landmarks(task: FilmTask) -> FilmClips:
  """Finds and saves the landmarks of a film, unless an earlier run did, and counts its clips."""
  try:
    film = _opened(task)
    found = examine_once(film, task.work)
    used = [stretch for stretch in stretches_of(film, found) if stretch.used]
    poses = [poses_of(film, found.track, stretch.first, stretch.last) for stretch in used]
    crops_of([film] * len(used), poses, FrameSize.of(task.options["size"]))  # raises if the head does not fit
    return FilmClips(task, len(used))
  except UserError as error:
    return FilmClips(task, 0, str(error))


def _opened(task: FilmTask) -> Any:
  options = {name: task.options[name] for name in ("landmarks", "fps", "cut_off", "person_at")}
  return open_film(task.path, **options)


def _numbers(films: Sequence[FilmClips]) -> tuple[list[FilmClips], list[str]]:
  """The usable films and their people, in the order of their numbers."""
  used = sorted((film for film in films if not film.error), key=lambda film: film.task.path)
  return used, list(dict.fromkeys(film.task.person for film in used))


def write_shard(film: FilmClips, all_films: Sequence[FilmClips]) -> dict[str, Any] | None:
  """Writes a film's records as one shard, and returns its part of meta.json; None for a film that is skipped."""
  if film.error:
    return None
  import tensorflow_datasets as tfds

  from anchor_jax.data.builder import features_of, same_bytes

  task = film.task
  used, people = _numbers(all_films)
  number = [other.task.path for other in used].index(task.path)
  before = sum(other.clips for other in used[:number])
  opened = _opened(task)
  size = FrameSize.of(task.options["size"])
  options = {"size": size, "person": task.person, "fps": task.options["fps"]}
  films = read_films([opened], [examine_once(opened, task.work)], **options)
  recorder = Recorder(films[0].clips, size, tqdm(disable=True))
  place = people.index(task.person)
  with new_file(task.work / _shard_name(number, len(used)), f"partial-{os.getpid()}") as path, same_bytes():
    serializer = tfds.core.example_serializer.ExampleSerializer(features_of(size).get_serialized_info())
    encode = features_of(size).encode_example
    numbered = ({**record, "person": place, "video": before + record["video"]} for record in recorder)
    examples = ((key, serializer.serialize_example(encode(record))) for key, record in enumerate(numbered))
    tfds.core.file_adapters.ArrayRecordFileAdapter.write_examples(path, examples)
  return {
    "number": number,
    "shards": len(used),
    "person": task.person,
    "frames": recorder.count,
    "bytes": (task.work / _shard_name(number, len(used))).stat().st_size,
    "videos": recorder.videos,
    "measures": [(measures.to_json(), frames) for measures, frames in recorder.measured[0]],
    "without_landmarks": recorder.without_landmarks,
    "without_surface": recorder.without_surface,
    "films": film_facts(films),
  }


def _shard_name(number: int, count: int) -> str:
  return f"{NAME}-{SPLIT}.array_record-{number:05d}-of-{count:05d}"


def join(
  tasks: Sequence[FilmTask], written: Sequence[dict[str, Any] | None], all_films: Sequence[FilmClips]
) -> dict[str, Any]:
  """Combines all shards into the prepared folder, and returns the contents of its meta.json.

  Raises:
    UserError: no film can be used, or the folder can't be written.
  """
  import tensorflow_datasets as tfds

  from anchor_jax.data.builder import VERSION, features_of

  shards = sorted((shard for shard in written if shard is not None), key=lambda shard: shard["number"])
  by_path = sorted(all_films, key=lambda film: film.task.path)
  left_out = {film.task.path: film.error for film in by_path if film.error}
  if not shards:
    raise UserError(f"none of the films can be used: {next(iter(left_out.values()), 'there is none')}")
  output, work, size = Path(tasks[0].output), tasks[0].work, FrameSize.of(tasks[0].options["size"])
  people = list(dict.fromkeys(shard["person"] for shard in shards))
  meta: dict[str, Any] = {name: [] for name in ("videos", "without_landmarks", "without_surface", "films")}
  measured: list[list[tuple[BodyMeasures, int]]] = [[] for _ in people]
  first = 0
  for shard in shards:
    person, before = people.index(shard["person"]), len(meta["videos"])
    meta["videos"] += [{**video, "person": person, "first": first + video["first"]} for video in shard["videos"]]
    measured[person] += [(BodyMeasures.from_json(values), frames) for values, frames in shard["measures"]]
    for name in ("without_landmarks", "without_surface"):
      meta[name] += [first + number for number in shard[name]]
    for film in shard["films"]:
      stretches = [{**s, "clip": before + s["clip"]} if "clip" in s else s for s in film["stretches"]]
      meta["films"].append({**film, "stretches": stretches})
    first += shard["frames"]
  with new_folder(output, PREPARED) as folder:
    for shard in shards:
      name = _shard_name(shard["number"], len(shards))
      shutil.copyfile(work / name, folder / name)
    place: Any = folder
    template = tfds.core.ShardedFileTemplate(place, dataset_name=NAME, split=SPLIT, filetype_suffix="array_record")
    lengths, size_on_disk = [shard["frames"] for shard in shards], sum(shard["bytes"] for shard in shards)
    splits = [tfds.core.SplitInfo(SPLIT, lengths, size_on_disk, template)]
    tfds.folder_dataset.write_metadata(
      data_dir=str(folder), features=features_of(size), version=VERSION, split_infos=splits, check_data=False
    )
    facts = {
      "format": FORMAT,
      "size": size.to_json(),
      "fps": meta["videos"][0]["fps"],
      "frames": first,
      "people": people,
      "measures": [median_measures(*zip(*videos)).to_json() if videos else None for videos in measured],
      **meta,
      "left_out": left_out,
      "files": {path.name: path.stat().st_size for path in sorted(folder.glob("*.array_record*"))},
    }
    (folder / META).write_text(meta_text(facts))
    source = PreparedSource(folder)
    write_preview(source)
    store_textures(source, None)
  remove_files(work, rf"{FINDINGS_FILES}|{NAME}-{SPLIT}\..*")
  return facts


def prepare_with_beam(
  videos: Sequence[str | os.PathLike], output: str | os.PathLike, flags: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
  """Prepares many films in a Beam pipeline, and returns the contents of the folder's meta.json.

  Args:
    videos: the files, at paths that all workers can read.
    output: the folder, at a path that all workers can write.
    flags: Beam's own, such as --runner; the default runs in this process.
    **options: of `tasks_of` and `FilmTask`.

  Raises:
    UserError: Beam is not installed, no film can be used, or the folder can't be written.
  """
  try:
    beam = importlib.import_module("apache_beam")
    settings = importlib.import_module("apache_beam.options.pipeline_options")
  except ImportError:
    raise UserError("Apache Beam is not installed: pip install 'anchor-jax[beam]'") from None
  check_prepared_target(output)
  tasks = tasks_of(videos, output, **options)
  # The process that joins the shards locks the output itself.
  with locked(partial_path(output, "looks")), beam.Pipeline(options=settings.PipelineOptions(list(flags))) as pipeline:
    found = pipeline | "films" >> beam.Create(tasks) | beam.Reshuffle() | "landmarks" >> beam.Map(find_landmarks)
    films = beam.pvalue.AsList(found)
    written = found | "spread" >> beam.Reshuffle() | "write" >> beam.Map(write_shard, films)
    joined = pipeline | "once" >> beam.Create([tasks]) | "join" >> beam.Map(join, beam.pvalue.AsList(written), films)
    del joined  # its result is the folder
  return json.loads((Path(output) / "meta.json").read_text())
