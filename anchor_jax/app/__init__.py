"""The page on which a person makes herself: films in, training watched, videos out.

Its parts that know no page: people and their folders (people.py), who may see them (owners.py), uploads (uploads.py),
jobs as files that survive the server (jobs.py), what a job runs (commands.py), the thread that runs one at a time
(worker.py), how far it is (progress.py), and one function for each thing that the page can do (workshop.py).
"""

from anchor_jax.app.people import People, Person
from anchor_jax.app.workshop import Workshop

__all__ = ["People", "Person", "Workshop"]
