"""People on the page: a folder each, under a random name; what a user calls the person is a label and never a path.

FOLDER/people/ID/person.json   label, owner, kind, size, films, consent
FOLDER/people/ID/films/        her films, film_1.mp4 and so on, with their sidecars
FOLDER/people/ID/prepared/     what `prepare` made of them
FOLDER/people/ID/trained/      the workdir of `train`
FOLDER/people/ID/motions/      uploaded motions, by the name of their job
FOLDER/people/ID/videos/       what `generate` made, by the name of its job
FOLDER/people/ID/jobs/         jobs and their logs, see jobs.py
FOLDER/people/ID/bundle.zip    what `export` made

person.json is also the mark by which a folder is the page's own: without a sound one it is set aside, which means that
it stays as it is and is shown. Only folders that an interrupted upload (.new-ID) or removal (.gone-ID) left, with their
person.json, are removed.
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
from typing import Annotated

from anchor_jax.app.access.marks import erase, is_folder, is_regular
from anchor_jax.core.errors import UserError
from anchor_jax.core.values import Within
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json
from anchor_jax.files.outputs import new_file, partial_path

EVERYONE = ""  # the owner of the studio person, whom all users see
STUDIO = "studio"  # her name: there is one, made when the page starts for the first time
KINDS = ("studio", "example", "film")  # the studio person, a person of a studio film, a person of uploaded films
SIZES = (128, 256)
FILMS = (".mp4", ".mov", ".mkv", ".webm")  # suffixes of films
MOST_PEOPLE = 50  # of one owner
MOST_IN_ALL = 1000  # of all owners
LATEST = 1e11  # seconds since 1970 that a record may name
_LONGEST_LABEL = 40
_RECORD = "person.json"
_GONE, _NEW = ".gone-", ".new-"  # prefixes of a folder that is being removed, or filled
_REMEDY = "whoever runs this page can mend it, or move the folder away"


class NotFound(UserError):
  """There is no such thing, or it belongs to somebody else, which is not told apart."""


def new_name() -> str:
  """Returns a random name for a folder or a file, which nobody can guess."""
  return secrets.token_hex(8)


def is_name(text: str) -> bool:
  """Whether a text that came from outside can be one of our names: nothing else is ever made part of a path."""
  return text == STUDIO or re.fullmatch(r"[0-9a-f]{16}", text) is not None


def is_owner(text: str) -> bool:
  """Whether a text in a record can be an owner's name."""
  return re.fullmatch(r"[0-9a-z]{1,64}", text) is not None


@dataclasses.dataclass(frozen=True)
class Aside:
  """Something in the page's folder that was not taken, and stays as it is.

  Attributes:
    place: where it is.
    owner: who may know of it; None where that can't be read, which leaves who runs the page.
    why: what is wrong with it.
  """

  place: Path
  owner: str | None
  why: str


@dataclasses.dataclass(frozen=True)
class Person:
  """One person.

  Attributes:
    name: of her folder.
    label: what her owner calls her.
    owner: of `owners.py`; `EVERYONE` for the studio person.
    kind: one of `KINDS`.
    size: side of her pictures in pixels.
    films: names of the files in her folder of films.
    created: seconds since 1970.
    consent: when it was confirmed that she agrees, in seconds since 1970; None where that was not needed.
  """

  name: str
  label: str
  owner: str
  kind: str
  size: int
  films: tuple[str, ...] = ()
  created: Annotated[float, Within(0, LATEST)] = 0.0
  consent: Annotated[float | None, Within(0, LATEST)] = None

  @property
  def real(self) -> bool:
    """Whether she comes from an uploaded film, and so may be a real person."""
    return self.kind == "film"


def clean_label(text: str) -> str:
  """Returns what a user typed as a label: printable, on one line, not too long.

  Raises:
    UserError: nothing is left.
  """
  label = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_LABEL].strip()
  if not label:
    raise UserError("give her a name, so that you find her again")
  return label


class People:
  """All people in a folder. Several threads may use it."""

  def __init__(self, folder: Path):
    """Reads those that there are, and finishes what was interrupted; `aside` has what could not be read."""
    self.folder = folder / "people"
    self.folder.mkdir(parents=True, exist_ok=True)
    self.aside: list[Aside] = []
    self._lock = threading.Lock()
    self._known: dict[str, Person] = {}
    for place in sorted(self.folder.iterdir()):
      try:
        if _is_unfinished(place):
          erase(place, _RECORD)
        elif is_name(place.name):
          self._known[place.name] = _read(place)
        elif is_folder(place):
          raise UserError(f"{place} is no folder of a person and stays: move it away if you like")
      except (UserError, OSError) as error:
        self.aside.append(Aside(place, _owner_in(place), str(error)))

  def folder_of(self, name: str) -> Path:
    """Returns the folder of a person.

    Raises:
      NotFound: this can't be the name of one.
    """
    if not is_name(name):
      raise NotFound("there is no such person")
    return self.folder / name

  def visible(self, owner: str) -> list[Person]:
    """The people that an owner sees, the studio person first, then the newest first."""
    with self._lock:
      seen = [person for person in self._known.values() if person.owner in (owner, EVERYONE)]
    return sorted(seen, key=lambda person: (person.kind != "studio", -person.created))

  def everyone(self) -> list[Person]:
    """The people of all owners."""
    with self._lock:
      return list(self._known.values())

  def get(self, name: str, owner: str) -> Person:
    """Returns a person that an owner sees.

    Raises:
      NotFound: there is none, or she belongs to somebody else.
    """
    person = self.find(name)
    if person is None or person.owner not in (owner, EVERYONE):
      raise NotFound("there is no such person (any more)")
    return person

  def find(self, name: str) -> Person | None:
    """Returns a person of whatever owner, None where there is none."""
    with self._lock:
      return self._known.get(name)

  def new(self, label: str, owner: str, kind: str, size: int, consent: bool = False) -> Person:
    """Returns a new person, who is kept once she is given to `add`.

    Raises:
      UserError: no name, no consent for a person of an uploaded film, or too many people.
    """
    if kind not in KINDS or type(size) is not int or size not in SIZES:
      raise UserError("choose one of the sizes")
    if kind == "film" and not consent:
      raise UserError("confirm first that the person in the film agrees to this")
    self.check_room(owner)
    name, now = STUDIO if kind == "studio" else new_name(), time.time()
    return Person(name, clean_label(label), owner, kind, size, (), now, now if consent else None)

  def check_room(self, owner: str) -> None:
    """Checks that an owner can have one more person.

    Raises:
      UserError: there are too many, of this owner or of all.
    """
    people = self.everyone()
    if sum(person.owner == owner for person in people) >= MOST_PEOPLE:
      raise UserError(f"there are {MOST_PEOPLE} people already: delete one first")
    if len(people) >= MOST_IN_ALL:
      raise UserError("this page has as many people as it may have: whoever runs it can delete some")

  def add(self, person: Person) -> Person:
    """Keeps a person, and returns the person."""
    self.begin(person)
    return self.keep(person)

  def begin(self, person: Person) -> Path:
    """Returns a folder for what is known of a new person, who is there once it is complete (`keep`)."""
    place = self.folder / f"{_NEW}{person.name}"
    place.mkdir()
    _write(place, person)
    return place

  def keep(self, person: Person) -> Person:
    """Keeps a person whose folder is complete now.

    Raises:
      UserError: something else has the folder's name.
    """
    begun, place = self.folder / f"{_NEW}{person.name}", self.folder / person.name
    _write(begun, person)
    try:
      begun.rename(place)
    except OSError:
      erase(begun, _RECORD)
      raise UserError(f"{place} is something else's: move it away, or choose another --folder") from None
    with self._lock:
      self._known[person.name] = person
    return person

  def drop(self, person: Person) -> None:
    """Removes the folder of a person who is not kept; again is no mistake."""
    place = self.folder / f"{_NEW}{person.name}"
    if is_folder(place):
      erase(place, _RECORD)

  def set_aside(self, name: str) -> None:
    """Renames a damaged folder, so that there can be another of its name; nothing is done where there is none.

    Raises:
      UserError: it has no record, so that it is somebody else's.
    """
    place = self.folder / name
    if not os.path.lexists(place) or (is_folder(place) and not any(place.iterdir())):
      return
    if not (is_folder(place) and is_regular(place / _RECORD)):
      raise UserError(f"{place} is no folder of this page: move it away, or choose another --folder")
    to = self.folder / f"{name}.aside-{new_name()}"
    place.rename(to)
    self.aside = [dataclasses.replace(one, place=to) if one.place == place else one for one in self.aside]

  def hide(self, name: str) -> None:
    """Makes that nobody sees a person any more, who is removed next."""
    with self._lock:
      self._known.pop(name, None)

  def remove(self, person: Person) -> None:
    """Removes a person and everything in the folder; interrupted, the next start goes on with it.

    Raises:
      UserError: this did not work, or not for everything.
    """
    folder, gone = self.folder_of(person.name), self.folder / f"{_GONE}{person.name}"
    self.hide(person.name)
    try:
      folder.rename(gone)
    except OSError:
      logging.getLogger(__name__).exception("%s can't be removed", folder)
      with self._lock:
        self._known[person.name] = person
      raise UserError(
        f"{person.label} can't be deleted now: whoever runs this page finds the reason in its log"
      ) from None
    try:
      erase(gone, _RECORD)
    except OSError:
      logging.getLogger(__name__).exception("%s can't be removed", gone)
      raise UserError(
        f"not everything of {person.label} can be deleted now: whoever runs this page finds the reason in its log"
      ) from None


def _is_unfinished(place: Path) -> bool:
  """Whether a folder is what an interrupted upload or removal left, by its name and by the record that is its mark."""
  prefix = next((prefix for prefix in (_GONE, _NEW) if place.name.startswith(prefix)), None)
  if prefix is None or not is_name(place.name.removeprefix(prefix)) or not is_folder(place):
    return False
  return is_regular(place / _RECORD) or all(child == partial_path(place / _RECORD) for child in place.iterdir())


def _write(place: Path, person: Person) -> None:
  record = dataclasses.asdict(person)
  del record["name"]
  with new_file(place / _RECORD) as path:
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _read(place: Path) -> Person:
  """Returns the person in a folder.

  Raises:
    UserError: the folder or its record is not as the page writes it.
  """
  record = place / _RECORD
  if not is_folder(place) or not is_regular(record):
    raise UserError(f"{place} has no {_RECORD}: {_REMEDY}")
  values = read_json(record, "record", _REMEDY)
  if not isinstance(values, dict):
    raise UserError(f"{record} is damaged (it is no record): {_REMEDY}")
  person: Person = fields_of(Person, {**values, "name": place.name}, record, _REMEDY)
  if person.kind not in KINDS or person.size not in SIZES:
    raise UserError(f"{record} is damaged (the kind or the size): {_REMEDY}")
  everyone = person.owner == EVERYONE
  if (
    everyone != (place.name == STUDIO)
    or everyone != (person.kind == STUDIO)
    or not (everyone or is_owner(person.owner))
  ):
    raise UserError(f"{record} is damaged (the owner): {_REMEDY}")
  if not person.label.strip() or person.label != clean_label(person.label):
    raise UserError(f"{record} is damaged (the label): {_REMEDY}")
  if not all(re.fullmatch(r"film_\d{1,3}\.(mp4|mov|mkv|webm)", film) for film in person.films):
    raise UserError(f"{record} is damaged (the films): {_REMEDY}")
  return person


def _owner_in(place: Path) -> str | None:
  """The owner in a damaged record, if that can still be read."""
  try:
    owner = read_json(place / _RECORD)["owner"] if is_regular(place / _RECORD) else None
  except (UserError, TypeError, KeyError, IndexError):
    return None
  return owner if isinstance(owner, str) and is_owner(owner) else None
