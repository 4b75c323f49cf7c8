"""Stores people: one folder each under a random name; a user's name for the person is a label and never a path.

FOLDER/people/ID/person.json   label, owner, kind, size, films, consent
FOLDER/people/ID/films/        film_1.mp4 and so on, with their sidecars
FOLDER/people/ID/prepared/     output of `prepare`
FOLDER/people/ID/trained/      workdir of `train`
FOLDER/people/ID/motions/      uploaded motions, named after their job
FOLDER/people/ID/videos/       output of `generate`, named after its job
FOLDER/people/ID/jobs/         jobs and their logs, see jobs/queue.py
FOLDER/people/ID/bundle.zip    output of `export`

person.json also marks a folder as the page's own. A folder without a valid one is set aside: reported, and otherwise
left alone. The page removes only folders of interrupted uploads (.new-ID) and removals (.gone-ID) that have a
person.json.
"""

import dataclasses
import json
import logging
import os
import re
import secrets
import threading
import time
from pathlib import Path
from typing import Annotated, Any

from anchor_jax.app.access.marks import erase, is_folder, is_regular
from anchor_jax.core.errors import UserError
from anchor_jax.core.values import Within
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json
from anchor_jax.files.outputs import new_file, partial_path

EVERYONE = ""  # owner of the studio person, which all users see
STUDIO = "studio"  # name of the studio person, created at the page's first start
KINDS = ("studio", "example", "film")  # the studio person, a person from a studio film, a person from uploaded films
SIZES = (128, 256, 512)  # shorter side of the pictures in pixels
SHAPES = ("square", "film", "portrait", "landscape")  # "film": as the film and the person in it need
FILMS = (".mp4", ".mov", ".mkv", ".webm")  # accepted suffixes
MAX_PEOPLE = 50  # per owner
MAX_PEOPLE_IN_ALL = 1000  # over all owners
LATEST = 1e11  # seconds since 1970; limit for times in records
_MAX_LABEL = 40  # characters
_RECORD = "person.json"
_GONE, _NEW = ".gone-", ".new-"  # prefixes of folders being removed or filled
_REMEDY = "the page's operator can repair it, or move the folder away"


class NotFound(UserError):
  """Something does not exist or belongs to another owner; the two look the same."""


def new_name() -> str:
  """Returns a random, unguessable name for a folder or file."""
  return secrets.token_hex(8)


def is_name(text: str) -> bool:
  """Returns whether outside input is a well-formed name; nothing else may become part of a path."""
  return text == STUDIO or re.fullmatch(r"[0-9a-f]{16}", text) is not None


def is_owner(text: str) -> bool:
  """Returns whether a record's text is a well-formed owner name."""
  return re.fullmatch(r"[0-9a-z]{1,64}", text) is not None


@dataclasses.dataclass(frozen=True)
class SetAside:
  """A file or folder that the page can't use, and leaves alone.

  Attributes:
    path: where it is.
    owner: who may see this report; None, if unknown, for the page's operator only.
    reason: what is wrong with it.
  """

  path: Path
  owner: str | None
  reason: str


@dataclasses.dataclass(frozen=True)
class PersonRecord:
  """The record of one person, person.json.

  Attributes:
    name: name of the person's folder.
    label: the owner's name for the person.
    owner: see `owners.py`; `EVERYONE` for the studio person.
    kind: one of `KINDS`.
    size: of the pictures: the side of squares in pixels, width and height, or "auto:SIDE"; from `picture_size`.
    films: file names in the folder films/.
    created: seconds since 1970.
    consent: when the person's consent was confirmed, in seconds since 1970; None where none is needed.
  """

  name: str
  label: str
  owner: str
  kind: str
  size: int | tuple[int, int] | str
  films: tuple[str, ...] = ()
  created: Annotated[float, Within(0, LATEST)] = 0.0
  consent: Annotated[float | None, Within(0, LATEST)] = None

  @property
  def real(self) -> bool:
    """Whether the person comes from an uploaded film, and may be a real person."""
    return self.kind == "film"

  @property
  def side(self) -> int:
    """The one of `SIZES` that was chosen."""
    if isinstance(self.size, str):
      return int(self.size.removeprefix("auto:"))
    return self.size if isinstance(self.size, int) else min(self.size)


def picture_size(side: Any, shape: Any = SHAPES[0]) -> int | tuple[int, int] | str:
  """Returns the size of pictures with this shorter side; the longer side of a rectangle is half as long again.

  For the shape of the film, returns `prepare`'s flag, "auto:SIDE", since that size is known after preparing.

  Raises:
    UserError: the page offers no such pictures.
  """
  if type(side) is not int or side not in SIZES or shape not in SHAPES:
    raise UserError("choose one of the sizes and one of the shapes")
  longer = 3 * side // 2
  return {"square": side, "film": f"auto:{side}", "portrait": (side, longer), "landscape": (longer, side)}[shape]


_OFFERED = tuple(picture_size(side, shape) for side in SIZES for shape in SHAPES)


def clean_label(text: str) -> str:
  """Returns a user's text as a label: printable, on one line, of limited length.

  Raises:
    UserError: nothing is left.
  """
  label = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MAX_LABEL].strip()
  if not label:
    raise UserError("enter a name for the person")
  return label


class PeopleFolder:
  """All people in FOLDER/people. Thread-safe.

  Attributes:
    folder: FOLDER/people.
    aside: folders that could not be read.
  """

  def __init__(self, folder: Path):
    """Reads all people of the page's folder, and finishes interrupted removals."""
    self.folder = folder / "people"
    self.folder.mkdir(parents=True, exist_ok=True)
    self.aside: list[SetAside] = []
    self._lock = threading.Lock()
    self._known: dict[str, PersonRecord] = {}
    for path in sorted(self.folder.iterdir()):
      try:
        if _is_unfinished(path):
          erase(path, _RECORD)
        elif is_name(path.name):
          self._known[path.name] = _read(path)
        elif is_folder(path):
          raise UserError(f"{path} is not the folder of a person and is left alone: move it away if you like")
      except (UserError, OSError) as error:
        self.aside.append(SetAside(path, _owner_in(path), str(error)))

  def folder_of(self, name: str) -> Path:
    """Returns the folder of a person.

    Raises:
      NotFound: the name is malformed.
    """
    if not is_name(name):
      raise NotFound("there is no such person")
    return self.folder / name

  def visible(self, owner: str) -> list[PersonRecord]:
    """Returns the people that an owner sees: the studio person first, then the newest first."""
    with self._lock:
      visible = [person for person in self._known.values() if person.owner in (owner, EVERYONE)]
    return sorted(visible, key=lambda person: (person.kind != "studio", -person.created))

  def everyone(self) -> list[PersonRecord]:
    """Returns the people of all owners."""
    with self._lock:
      return list(self._known.values())

  def get(self, name: str, owner: str) -> PersonRecord:
    """Returns a person that an owner sees.

    Raises:
      NotFound: no such person, or another owner's.
    """
    person = self.find(name)
    if person is None or person.owner not in (owner, EVERYONE):
      raise NotFound("there is no such person (anymore)")
    return person

  def find(self, name: str) -> PersonRecord | None:
    """Returns a person of any owner; None if there is none."""
    with self._lock:
      return self._known.get(name)

  def new(
    self, label: str, owner: str, kind: str, size: int | tuple[int, int] | str, consent: bool = False
  ) -> PersonRecord:
    """Returns the record of a new person, which `add` (or `begin` and `publish`) saves.

    Raises:
      UserError: no name, no consent for a person from an uploaded film, or too many people.
    """
    if kind not in KINDS or isinstance(size, float) or size not in _OFFERED:
      raise UserError("choose one of the sizes")
    if kind == "film" and not consent:
      raise UserError("confirm first that the person in the film agrees to this")
    self.check_room(owner)
    name, now = STUDIO if kind == "studio" else new_name(), time.time()
    return PersonRecord(name, clean_label(label), owner, kind, size, (), now, now if consent else None)

  def check_room(self, owner: str) -> None:
    """Checks that an owner can have one more person.

    Raises:
      UserError: there are too many, of this owner or of all.
    """
    people = self.everyone()
    if sum(person.owner == owner for person in people) >= MAX_PEOPLE:
      raise UserError(f"you have {MAX_PEOPLE} people already: delete one first")
    if len(people) >= MAX_PEOPLE_IN_ALL:
      raise UserError("this page has its maximum number of people: its operator can delete some")

  def add(self, person: PersonRecord) -> PersonRecord:
    """Saves a person without further files, and returns the record."""
    self.begin(person)
    return self.publish(person)

  def begin(self, person: PersonRecord) -> Path:
    """Creates a folder for a new person's files, and returns it; `publish` makes the person visible."""
    folder = self.folder / f"{_NEW}{person.name}"
    folder.mkdir()
    _write(folder, person)
    return folder

  def publish(self, person: PersonRecord) -> PersonRecord:
    """Makes a person visible whose folder is now complete.

    Raises:
      UserError: the folder's name is taken.
    """
    new, folder = self.folder / f"{_NEW}{person.name}", self.folder / person.name
    _write(new, person)
    try:
      new.rename(folder)
    except OSError:
      erase(new, _RECORD)
      raise UserError(f"{folder} is already taken: move it away, or choose another --folder") from None
    with self._lock:
      self._known[person.name] = person
    return person

  def discard(self, person: PersonRecord) -> None:
    """Removes the folder of a person that was not published; can be repeated."""
    folder = self.folder / f"{_NEW}{person.name}"
    if is_folder(folder):
      erase(folder, _RECORD)

  def set_aside(self, name: str) -> None:
    """Renames a damaged folder to free its name; does nothing if there is none.

    Raises:
      UserError: the folder has no record, so it is not the page's.
    """
    folder = self.folder / name
    if not os.path.lexists(folder) or (is_folder(folder) and not any(folder.iterdir())):
      return
    if not (is_folder(folder) and is_regular(folder / _RECORD)):
      raise UserError(f"{folder} is not a folder of this page: move it away, or choose another --folder")
    renamed = self.folder / f"{name}.aside-{new_name()}"
    folder.rename(renamed)
    self.aside = [dataclasses.replace(one, path=renamed) if one.path == folder else one for one in self.aside]

  def hide(self, name: str) -> None:
    """Makes a person invisible, before removal."""
    with self._lock:
      self._known.pop(name, None)

  def remove(self, person: PersonRecord) -> None:
    """Removes a person and the folder; if interrupted, the next start finishes the removal.

    Raises:
      UserError: removal failed, or was incomplete.
    """
    folder, gone = self.folder_of(person.name), self.folder / f"{_GONE}{person.name}"
    self.hide(person.name)
    try:
      folder.rename(gone)
    except OSError:
      logging.getLogger(__name__).exception("%s can't be removed", folder)
      with self._lock:
        self._known[person.name] = person
      raise UserError(f"{person.label} can't be deleted now: the page's operator finds the reason in its log") from None
    try:
      erase(gone, _RECORD)
    except OSError:
      logging.getLogger(__name__).exception("%s can't be removed", gone)
      raise UserError(
        f"not everything of {person.label} can be deleted now: the page's operator finds the reason in its log"
      ) from None


def _is_unfinished(folder: Path) -> bool:
  """Whether a folder was left by an interrupted upload or removal, judged by its name and its record."""
  prefix = next((prefix for prefix in (_GONE, _NEW) if folder.name.startswith(prefix)), None)
  if prefix is None or not is_name(folder.name.removeprefix(prefix)) or not is_folder(folder):
    return False
  return is_regular(folder / _RECORD) or all(child == partial_path(folder / _RECORD) for child in folder.iterdir())


def _write(folder: Path, person: PersonRecord) -> None:
  record = dataclasses.asdict(person)
  del record["name"]
  with new_file(folder / _RECORD) as path:
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path) -> PersonRecord:
  """Returns the person in a folder.

  Raises:
    UserError: the folder or its record is not as the page writes it.
  """
  record = folder / _RECORD
  if not is_folder(folder) or not is_regular(record):
    raise UserError(f"{folder} has no {_RECORD}: {_REMEDY}")
  values = read_json(record, "record", _REMEDY)
  if not isinstance(values, dict):
    raise UserError(f"{record} is damaged (not a JSON object): {_REMEDY}")
  person: PersonRecord = fields_of(PersonRecord, {**values, "name": folder.name}, record, _REMEDY)
  if person.kind not in KINDS or person.size not in _OFFERED:
    raise UserError(f"{record} is damaged (the kind or the size): {_REMEDY}")
  everyone = person.owner == EVERYONE
  if (
    everyone != (folder.name == STUDIO)
    or everyone != (person.kind == STUDIO)
    or not (everyone or is_owner(person.owner))
  ):
    raise UserError(f"{record} is damaged (the owner): {_REMEDY}")
  if not person.label.strip() or person.label != clean_label(person.label):
    raise UserError(f"{record} is damaged (the label): {_REMEDY}")
  if not all(re.fullmatch(r"film_\d{1,3}\.(mp4|mov|mkv|webm)", film) for film in person.films):
    raise UserError(f"{record} is damaged (the films): {_REMEDY}")
  return person


def _owner_in(folder: Path) -> str | None:
  """The owner in a damaged record, if it is still readable."""
  try:
    owner = read_json(folder / _RECORD)["owner"] if is_regular(folder / _RECORD) else None
  except (UserError, TypeError, KeyError, IndexError):
    return None
  return owner if isinstance(owner, str) and is_owner(owner) else None
