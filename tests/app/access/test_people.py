"""People: labels are never paths, owners see only their own people, and removal is complete."""

import dataclasses

import pytest

from anchor_jax.app.access import owners
from anchor_jax.app.access.people import EVERYONE, STUDIO, NotFound, PeopleFolder, clean_label, is_name
from anchor_jax.core.errors import UserError


def add(people, label="Ana", owner="a", kind="film", consent=True):
  return people.add(people.new(label, owner, kind, 128, consent))


def test_labels_are_cleaned_and_never_part_of_a_path(tmp_path):
  people = PeopleFolder(tmp_path)
  ana = add(people, "../../etc/\x00 <b>Ana</b>\n")
  assert ana.label == "../../etc/ <b>Ana</b>" and is_name(ana.name)
  assert [path.name for path in people.folder.iterdir()] == [ana.name]
  assert len(clean_label("x" * 999)) == 40
  with pytest.raises(UserError, match="name"):
    clean_label(" \n\t ")


@pytest.mark.parametrize("name", ["", "..", "../people", "a" * 15, "A" * 16, "a" * 16 + "\n", "a/b", "Studio"])
def test_malformed_names_never_become_paths(tmp_path, name):
  assert not is_name(name)
  with pytest.raises(NotFound):
    PeopleFolder(tmp_path).folder_of(name)


def test_owners_see_their_own_people_and_the_studio_person(tmp_path):
  people = PeopleFolder(tmp_path)
  ana, bea = add(people, "Ana", "a"), add(people, "Bea", "b")
  studio = add(people, "Studio", EVERYONE, "studio")
  assert studio.name == STUDIO
  assert people.visible("a") == [studio, ana]
  with pytest.raises(NotFound) as other:
    people.get(bea.name, "a")
  with pytest.raises(NotFound) as nobody:
    people.get("0" * 16, "a")
  assert str(other.value) == str(nobody.value)


def test_real_people_need_consent_and_studio_people_do_not(tmp_path):
  people = PeopleFolder(tmp_path)
  with pytest.raises(UserError, match="agrees"):
    add(people, consent=False)
  assert add(people).consent and add(people, kind="example", consent=False).consent is None


def test_people_survive_a_restart_and_removed_ones_do_not(tmp_path):
  people = PeopleFolder(tmp_path)
  ana = dataclasses.replace(people.new("Ana", "a", "film", 128, True), films=("film_1.mp4",))
  people.add(ana)
  bea = add(people, "Bea")
  (people.folder_of(bea.name) / "films").mkdir()
  (people.folder_of(bea.name) / "films/film_1.mp4").write_bytes(b"film")
  people.remove(bea)
  assert not people.folder_of(bea.name).exists()
  people.begin(people.new("An upload", "a", "film", 128, True))  # interrupted, and so is a removal
  people.folder_of(add(people, "A removal").name).rename(people.folder / f".gone-{'0' * 16}")
  assert PeopleFolder(tmp_path).visible("a") == [ana]
  assert [path.name for path in people.folder.iterdir()] == [ana.name]


def test_owner_names_are_hashes_of_tokens(tmp_path):
  token = owners.local_token(tmp_path)
  assert owners.local_token(tmp_path) == token and (tmp_path / "token").stat().st_mode & 0o077 == 0
  assert owners.owner_of(token) != owners.owner_of(owners.new_token())
  assert token not in owners.owner_of(token)
  header = owners.cookie_header(token)
  assert owners.token_in(owners.cookies_of(header)) == token and "HttpOnly" in header and "SameSite=Strict" in header
  assert owners.token_in({owners.COOKIE: "guess"}) is None and owners.token_in({}) is None
  assert owners.token_in({owners.COOKIE: token + "\n"}) is None
