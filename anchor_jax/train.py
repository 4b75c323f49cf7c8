"""Trains one part (vae, body or head) of a workdir.

Example: both parts of one person, starting from the weights that come with the package:
  python -m anchor_jax.train --config=configs/studio_finetune.py:body --workdir=runs/ana --config.data.path=data/ana
  python -m anchor_jax.train --config=configs/studio_finetune.py:head --workdir=runs/ana --config.data.path=data/ana

The same command again continues from the newest checkpoint; docs/restart.md lists the settings that may change then.
Any setting of the config can be given as --config.key=value (for example --config.steps=50
--config.optimizer.learning_rate=1e-4).
"""

# Reader processes import this module again: JAX, and what needs it, is imported inside functions.
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor_jax.core.cli import command, make_callable, run, say
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize

if TYPE_CHECKING:
  from anchor_jax.config.run import RunConfig

_FLAGS = """
Flags:
  --config=FILE.py[:ARGUMENT]
  --workdir=DIR
  --config.key=value
  --coordinator=HOST:PORT --processes=COUNT --process=INDEX   (several processes that JAX doesn't detect)
  --profile   (trace three steps, for TensorBoard's profiler)
  --aot=v5e:4x4   (no training: compile the step for a TPU pod and report whether it fits; needs the tpu extra,
                   and a --config.data.batch_size that divides over the chips)"""


def train(
  config: "RunConfig", workdir: str | Path, devices: Sequence[Any] | None = None, profile: bool = False
) -> dict[str, float]:
  """Trains config.part in WORKDIR/PART, from its newest checkpoint if any, and returns the last logged metrics.

  Args:
    config: all settings, for example from `load_config`.
    workdir: the person's folder.
    devices: devices of the mesh; all by default.
    profile: whether to write a profiler trace of three steps to WORKDIR/PART/profile.

  Raises:
    UserError: settings, data, weights or checkpoints do not fit together or into memory, the loss was not finite for
      config.max_skipped steps, or another run is training this part.
    StoppedBySignal: SIGTERM or Ctrl-C arrived; all steps up to then are saved.
  """
  import jax

  from anchor_jax.inference.head_choice import choose_head
  from anchor_jax.training.checkpoint import only_run_in
  from anchor_jax.training.loop import train_part

  with only_run_in(Path(workdir) / config.part):
    metrics = train_part(config, Path(workdir), devices, profile)
  if config.part in ("body", "head") and jax.process_count() == 1 and (choice := choose_head(workdir)) is not None:
    say(choice.sentence())
  return metrics


@command
def main() -> None:
  """The command line."""
  if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
    say(f"{__doc__}{_FLAGS}")
    return
  from absl import flags
  from ml_collections import ConfigDict, config_flags
  from ml_collections.config_flags.config_flags import ConfigFileFlagParser

  from anchor_jax.config.find import changed_config, failed_config, with_found_config
  from anchor_jax.config.renamed import renamed_flags, with_current_names
  from anchor_jax.config.run import run_config

  class ConfigFile(ConfigFileFlagParser):
    def parse(self, path):
      try:
        values = super().parse(path)
      except UserError:
        raise
      except Exception as error:
        raise failed_config(str(path).split(":", 1)[0], error) from error
      current = with_current_names(values)
      return values if current is values else ConfigDict(current).lock()

  arguments, size = _without_rectangle(renamed_flags(sys.argv))
  config_file = config_flags.DEFINE_config_file(
    "config", None, "Config file, FILE.py or FILE.py:ARGUMENT.", sys_argv=arguments
  )
  flags.FLAGS["config"].parser = ConfigFile("config")
  workdir = flags.DEFINE_string("workdir", None, "Folder of the person: checkpoints and reports go to WORKDIR/PART.")
  coordinator = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if JAX doesn't detect it.")
  processes = flags.DEFINE_integer("processes", None, "Number of processes.")
  process = flags.DEFINE_integer("process", None, "Number of this process, from 0.")
  topology = flags.DEFINE_string(
    "aot", None, "TPU topology such as v5e:4x4: compile the step for it and report whether it fits."
  )
  profile = flags.DEFINE_bool("profile", False, "Trace three steps into WORKDIR/PART/profile.")
  try:
    rest = flags.FLAGS(with_found_config(arguments))[1:]
    config = run_config(config_file.value) if config_file.value else None
    config = changed_config(config, {"data.size": tuple(size)}) if config and size else config
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
    message = " ".join(str(error).replace("\\n", " ").replace("\\'", "'").split())
    while message[:1] in ("'", '"') and message[-1:] == message[:1]:  # a KeyError's text is in quotes, maybe twice
      message = message[1:-1]
    if message.isidentifier():  # the name alone is all that some of these errors contain
      message = f'unknown setting "{message}"'
    raise UserError(f"{message[-300:]} (see python -m anchor_jax.train --help)") from error
  if rest or config is None or not (workdir.value or topology.value):
    raise UserError("give --config=FILE.py[:ARGUMENT] and --workdir=DIR (see python -m anchor_jax.train --help)")
  if topology.value or not workdir.value:
    from anchor_jax.training.compiling import print_fit

    sys.exit(0 if print_fit(topology.value or "", config) else 1)
  _train_and_report(config, Path(workdir.value), (coordinator.value, processes.value, process.value), profile.value)


def _without_rectangle(arguments: Sequence[str]) -> tuple[list[str], FrameSize | None]:
  """The arguments without --config.data.size=WxH, which is no integer as the config's own value is, and that size."""
  flag = "config.data.size="
  given = [one for one in arguments if one.lstrip("-").startswith(flag) and "x" in one.partition("=")[2].lower()]
  size = FrameSize.parse(given[-1].partition("=")[2]) if given else None
  return [one for one in arguments if one not in given], size


def _train_and_report(
  config: "RunConfig", workdir: Path, processes: tuple[str | None, int | None, int | None], profile: bool
) -> None:
  from anchor_jax.files.outputs import prepare_parent
  from anchor_jax.store.restart import read_started_run

  # Checked first: importing JAX takes seconds.
  prepare_parent(workdir / config.part / "checkpoints")
  if (previous := read_started_run(workdir / config.part)) is not None:
    previous.check_settings(config)

  from anchor_jax.config.run import MeshConfig
  from anchor_jax.core import runtime
  from anchor_jax.core.process_errors import end_together

  runtime.enable_compilation_cache()
  # The default mesh replicates weights on every device, which networks small enough for a CPU can afford.
  if config.mesh == MeshConfig() and processes == (None, None, None):
    runtime.divide_cpu(config.steps, config.data.batch_size, config.optimizer.accumulate)
  runtime.initialize_distributed(*processes)
  with end_together():
    metrics = train(config, workdir, profile=profile)
  say(f"trained {config.part} in {workdir}: {', '.join(f'{name} {value:.4g}' for name, value in metrics.items())}")


make_callable(__name__)  # anchor_jax.train(...) is the function, also after `import anchor_jax.train`

if __name__ == "__main__":
  run(main)
