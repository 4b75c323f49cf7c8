"""One run a part: the lock of WORKDIR/PART, held by the first of a run's processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import prepare_parent
from anchor_jax.formats.roles import LORA_FILE
from anchor_jax.store.damage import Outcome
from anchor_jax.store.weights import STEP
from anchor_jax.training.checkpoint import worst_of_all_processes


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
  """Holds the lock of a part's folder; processes of one run share it.

  Raises:
    UserError: in all processes, where another run holds it, or where the folder is a person that was saved without it.
  """
  with contextlib.ExitStack() as stack:
    refused = None
    try:
      if jax.process_index() == 0:
        _check_run(folder)
        prepare_parent(folder)
        stack.enter_context(locked(folder))
    except UserError as error:
      refused = error
    if worst_of_all_processes(Outcome.UNREADABLE if refused else Outcome.RESTORED) is not Outcome.RESTORED:
      raise refused or UserError(f"{folder} can't be written, the run's first process says why")
    yield


def _check_run(folder: Path) -> None:
  """Raises UserError for the folder of a part that was saved or converted: a run would write over what is in it."""
  if any((folder / name).exists() for name in (STEP, LORA_FILE)):
    raise UserError(
      f"{folder} is of a person that was saved: choose another --workdir, and start from her with"
      f" --config.init={folder.parent}"
    )
