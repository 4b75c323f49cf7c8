"""One prepared folder from thousands of films, as an Apache Beam pipeline: each film becomes one shard of records.

Every step takes one film and files that all workers see: `look` finds landmarks and keeps them, `write_shard` writes
its records, and `join` puts the shards together once all are written. The numbers of a film's people and clips
depend on the films before it, so that all looks end before the first shard is begun. A step that is run again writes
the same bytes. A film that can't be used is left out, and told.
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
from anchor_jax.data.record_fields import FORMAT, SPLIT
from anchor_jax.data.records import PREPARED, PreparedSource, Recorder, check_prepared_target, write_preview
from anchor_jax.data.textures import store_textures
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import new_file, new_folder, partial_path, remove_files
from anchor_jax.films.clips import read_films, stretches_of
from anchor_jax.films.findings import FINDINGS_FILES, examine_once
from anchor_jax.films.poses import open_film
from anchor_jax.films.report import film_facts
from anchor_jax.landmarks.measures import BodyMeasures, median_measures

NAME = "prepared_frames"  # of the datasets' library, as `records.build` has it


@dataclasses.dataclass(frozen=True)
class FilmTask:
  """A film to prepare.

  Attributes:
    path: the file.
    person: name of who is in it.
    output: the prepared folder; what is kept until all is done lies beside it.
    options: `size`, `fps`, `landmarks`, `cut_off` and `person_at`, as of `prepare`.
  """

  path: str
  person: str
  output: str
  options: dict[str, Any]

  @property
  def work(self) -> Path:
    """The folder with what is kept."""
    return partial_path(self.output, "looks")


@dataclasses.dataclass(frozen=True)
class Looked:
  """What is known of a film after its look.

  Attributes:
    clips: how many it becomes.
    error: why it can't be used; "" where it can.
  """

  task: FilmTask
  clips: int
  error: str = ""


def tasks_of(
  videos: Sequence[str | os.PathLike], output: str | os.PathLike, person: str | None, **options: Any
) -> list[FilmTask]:
  """Returns the tasks for films in the order of their paths, each once.

  Without `person` each film shows somebody else, who is named as its file is (and its folder, where two are named so).
  """
  paths = sorted({str(Path(video).absolute()) for video in videos})
  stems = [Path(path).stem for path in paths]
  longer = [f"{Path(path).parent.name}/{stem}" for path, stem in zip(paths, stems)]
  names = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, longer)]
  return [FilmTask(path, person or name, str(Path(output).absolute()), options) for path, name in zip(paths, names)]


def look(task: FilmTask) -> Looked:
  """Finds the landmarks of a film, unless an earlier run kept them, and returns how many clips it becomes."""
  try:
    film = _opened(task)
    return Looked(task, sum(stretch.used for stretch in stretches_of(film, examine_once(film, task.work))))
  except UserError as error:
    return Looked(task, 0, str(error))


def _opened(task: FilmTask) -> Any:
  options = {name: task.options[name] for name in ("landmarks", "fps", "cut_off", "person_at")}
  return open_film(task.path, **options)


def _numbers(looked: Sequence[Looked]) -> tuple[list[Looked], list[str]]:
  """The films that can be used, in order, and their people, in order."""
  used = sorted((one for one in looked if not one.error), key=lambda one: one.task.path)
  return used, list(dict.fromkeys(one.task.person for one in used))


def write_shard(one: Looked, all_looked: Sequence[Looked]) -> dict[str, Any] | None:
  """Writes the records of a film as one shard, and returns what meta.json needs of it; None of one that is left out."""
  if one.error:
    return None
  import tensorflow_datasets as tfds

  from anchor_jax.data.builder import features_of, same_bytes

  task = one.task
  used, people = _numbers(all_looked)
  number = [other.task.path for other in used].index(task.path)
  before = sum(other.clips for other in used[:number])
  film = _opened(task)
  options = {"size": task.options["size"], "person": task.person, "fps": task.options["fps"]}
  films = read_films([film], [examine_once(film, task.work)], **options)
  recorder = Recorder(films[0].clips, options["size"], tqdm(disable=True))
  place = people.index(task.person)
  with new_file(task.work / _shard_name(number, len(used)), f"partial-{os.getpid()}") as path, same_bytes():
    serializer = tfds.core.example_serializer.ExampleSerializer(features_of(options["size"]).get_serialized_info())
    encode = features_of(options["size"]).encode_example
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
  tasks: Sequence[FilmTask], written: Sequence[dict[str, Any] | None], looked: Sequence[Looked]
) -> dict[str, Any]:
  """Puts all shards together into the prepared folder, and returns what its meta.json holds.

  Raises:
    UserError: no film can be used, or the folder can't be written.
  """
  import tensorflow_datasets as tfds

  from anchor_jax.data.builder import VERSION, features_of

  shards = sorted((shard for shard in written if shard is not None), key=lambda shard: shard["number"])
  left_out = {one.task.path: one.error for one in sorted(looked, key=lambda one: one.task.path) if one.error}
  if not shards:
    raise UserError(f"none of the films can be used: {next(iter(left_out.values()), 'there is none')}")
  output, work, size = Path(tasks[0].output), tasks[0].work, tasks[0].options["size"]
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
      "size": size,
      "fps": meta["videos"][0]["fps"],
      "frames": first,
      "people": people,
      "measures": [median_measures(*zip(*videos)).to_json() if videos else None for videos in measured],
      **meta,
      "left_out": left_out,
      "files": {path.name: path.stat().st_size for path in sorted(folder.glob("*.array_record*"))},
    }
    (folder / "meta.json").write_text(json.dumps(facts, indent=1) + "\n")
    source = PreparedSource(folder)
    write_preview(source)
    store_textures(source, None)
  remove_files(work, rf"{FINDINGS_FILES}|{NAME}-{SPLIT}\..*")
  return facts


def prepare_with_beam(
  videos: Sequence[str | os.PathLike], output: str | os.PathLike, flags: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
  """Prepares many films in a Beam pipeline; returns what the folder's meta.json holds.

  Args:
    videos: the files, at paths that all workers see.
    output: the folder, likewise.
    flags: Beam's own, such as --runner; by default it runs in this process.
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
  # The output itself is locked by the process that joins the shards.
  with locked(partial_path(output, "looks")), beam.Pipeline(options=settings.PipelineOptions(list(flags))) as pipeline:
    looked = pipeline | "films" >> beam.Create(tasks) | beam.Reshuffle() | "look" >> beam.Map(look)
    every = beam.pvalue.AsList(looked)
    written = looked | "spread" >> beam.Reshuffle() | "write" >> beam.Map(write_shard, every)
    joined = pipeline | "once" >> beam.Create([tasks]) | "join" >> beam.Map(join, beam.pvalue.AsList(written), every)
    del joined  # its result is the folder
  return json.loads((Path(output) / "meta.json").read_text())
