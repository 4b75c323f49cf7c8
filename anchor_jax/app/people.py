"""People on the page: a folder each, under a random name; what a user calls her is a label and never a path.

FOLDER/people/ID/person.json   label, owner, kind, size, films, consent
FOLDER/people/ID/films/        her films, film_1.mp4 and so on, with their sidecars
FOLDER/people/ID/prepared/     what `prepare` made of them
FOLDER/people/ID/trained/      the workdir of `train`
FOLDER/people/ID/motions/      uploaded motions, by the name of their job
FOLDER/people/ID/videos/       what `generate` made, by the name of its job
FOLDER/people/ID/jobs/         jobs and their logs, see jobs.py
FOLDER/people/ID/bundle.zip    what `export` made
"""

import dataclasses
import json
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from anchor_jax.errors import UserError
from anchor_jax.files import new_file

EVERYONE = ""  # the owner of the studio person, whom all users see
STUDIO = "studio"  # her name: there is one, made when the page starts for the first time
KINDS = ("studio", "example", "film")  # the studio person, a person of a studio film, a person of uploaded films
SIZES = (128, 256)
MOST_PEOPLE = 50  # of one owner
_LONGEST_LABEL = 40
_RECORD = "person.json"
_GONE = ".gone-"  # prefix of a folder that is being removed


class NotFound(UserError):
  """There is no such thing, or it belongs to somebody else, which is not told apart."""


def new_name() -> str:
  """Returns a random name for a folder or a file, which nobody can guess."""
  return secrets.token_hex(8)


def is_name(text: str) -> bool:
  """Whether a text that came from outside can be one of our names: nothing else is ever made part of a path."""
  return text == STUDIO or re.fullmatch(r"[0-9a-f]{16}", text) is not None


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
  created: float = 0.0
  consent: float | None = None

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
    """Reads those that there are, and finishes what an interrupted `remove` left."""
    self.folder = folder / "people"
    self.folder.mkdir(parents=True, exist_ok=True)
    self._lock = threading.Lock()
    self._known: dict[str, Person] = {}
    for gone in self.folder.glob(f"{_GONE}*"):
      shutil.rmtree(gone, ignore_errors=True)
    for folder in [place for place in self.folder.iterdir() if not (place / _RECORD).exists()]:
      shutil.rmtree(folder, ignore_errors=True)  # an upload that was interrupted
    for record in self.folder.glob(f"*/{_RECORD}"):
      fields = json.loads(record.read_text(encoding="utf-8"))
      person = Person(**{**fields, "name": record.parent.name, "films": tuple(fields["films"])})
      self._known[person.name] = person

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
    if kind not in KINDS or size not in SIZES:
      raise UserError(f"a person of kind {kind} and {size} pixels can't be made")
    if kind == "film" and not consent:
      raise UserError("confirm first that the person in the film agrees to this")
    if sum(person.owner == owner for person in self.visible(owner)) >= MOST_PEOPLE:
      raise UserError(f"there are {MOST_PEOPLE} people already: delete one first")
    name, now = STUDIO if kind == "studio" else new_name(), time.time()
    return Person(name, clean_label(label), owner, kind, size, (), now, now if consent else None)

  def add(self, person: Person) -> Person:
    """Keeps a person, and returns her."""
    name = person.name
    (self.folder / name).mkdir(exist_ok=True)
    record = dataclasses.asdict(person)
    del record["name"]
    with new_file(self.folder / name / _RECORD) as path:
      path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    with self._lock:
      self._known[name] = person
    return person

  def remove(self, name: str) -> None:
    """Removes a person and everything in her folder; interrupted, the next start goes on with it."""
    folder = self.folder_of(name)
    with self._lock:
      self._known.pop(name, None)
    gone = self.folder / f"{_GONE}{name}"
    if folder.exists():
      folder.rename(gone)
    shutil.rmtree(gone)
