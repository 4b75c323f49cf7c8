"""All commands: help has an example, and a user's mistake is one line with exit code 2."""

import errno
import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from anchor_jax.core import runtime
from anchor_jax.core.errors import UserError

COMMANDS = ("train", "prepare", "generate", "evaluate", "demo", "convert", "verify", "export", "bench", "distil", "app")

SLOW = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "scipy", "mediapipe"}  # imports


def run(command, *arguments):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", [command, *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
      importlib.import_module(f"anchor_jax.{command}").main()
  return left.value.code


@pytest.fixture
def fresh_flags():
  """Removes the flags that a command defines: Abseil's flags are global."""
  import grain.python  # noqa: F401  (its flags must stay)

  before = set(flags.FLAGS)
  yield
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, monkeypatch, capsys, fresh_flags):
  monkeypatch.setattr(sys, "argv", [command, "--help"])
  try:
    importlib.import_module(f"anchor_jax.{command}").main()
  except SystemExit as left:
    assert not left.code
  assert f"python -m anchor_jax.{command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_no_slow_package(command):
  code = (
    f"import runpy, sys; sys.argv = ['x', '--help']\n"
    f"try: runpy.run_module('anchor_jax.{command}', run_name='__main__')\n"
    "except SystemExit as left: assert not left.code\n"
    f"slow = {SLOW} & set(sys.modules)\n"
    "assert not slow, slow"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  "command,arguments,message",
  [
    ("generate", ["--checkpoint=OUT"], "--motion"),
    ("generate", ["--checkpoint=OUT/x", "--motion=OUT/m", "--output=OUT/a.mp4"], "no folder"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4"], "no video"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.avi"], "ends in .mp4"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--frames=0"], "at least 1"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/file/a.mp4"], "cannot write"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--json=OUT/j"], "--json needs --live"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--live", "--resume"], "with --live"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--guidance-interval=x"], "two noise"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--person-at=left"], "give x,y"),
    ("generate", ["--checkpoint=OUT", "--motion=camera", "--output=OUT/a.mp4"], "needs --live"),
    ("generate", ["--checkpoint=OUT", "--motion=camera:", "--output=OUT/a.mp4", "--live"], "the number of a camera"),
    ("generate", ["--checkpoint=OUT", "--motion=camera", "--live"], "--output=FILE.mp4 is missing"),
    ("generate", ["--checkpoint=OUT", "--motion=camera", "--live", "--show", "--video=1"], "combined with a camera"),
    ("generate", ["--checkpoint=OUT", "--motion=OUT/m", "--live", "--show"], "--show needs a camera"),
    (
      "generate",
      ["--checkpoint=OUT", "--motion=OUT/m", "--output=OUT/a.mp4", "--head", "--no-head"],
      "exclude each other",
    ),
    ("distil", ["--checkpoint=OUT", "--data=OUT", "--output=OUT/l", "--widths=a"], "give integers"),
    ("distil", ["--checkpoint=OUT", "--data=OUT", "--output=OUT/l", "--layers=1"], "one entry for each width"),
    (
      "evaluate",
      ["--generated=OUT/x.mp4", "--truth=OUT/t", "--training=OUT/t", "--output=OUT/r.json"],
      "no prepared folder",
    ),
    (
      "evaluate",
      ["--generated=OUT/file", "--truth=OUT/t", "--training=OUT/t", "--output=OUT/file"],
      "overwrite an input",
    ),
    (
      "evaluate",
      ["--generated=OUT/a.mp4", "--truth=OUT/t", "--training=OUT/t", "--output=OUT/film.mp4"],
      "ends in .json",
    ),
    (
      "evaluate",
      ["--generated=OUT/a.mp4", "--truth=OUT/t", "--training=OUT/t", "--output=OUT/r.json", "--page=OUT/film.mp4"],
      "ends in .html",
    ),
    ("verify", ["OUT/golden", "--output=OUT/film.mp4"], "ends in .npz"),
    ("export", ["--checkpoint=OUT/x", "--output=OUT/b"], "no folder"),
    ("export", ["--checkpoint=OUT", "--output=OUT/b"], "holds no trained part"),
    ("export", ["--checkpoint=OUT", "--output=OUT/b", "--platforms=gpu"], 'unknown platform "gpu"'),
    ("demo", ["--output=OUT/file/x"], "cannot write"),
    ("app", ["--folder=OUT/x", "--port=0"], "1 to 65535"),
    ("app", ["--folder=OUT/x", "--seconds=0"], "at least 1"),
    ("demo", ["--output=OUT/x", "--config=OUT/none.py"], "no config"),
    ("demo", ["--smok"], "--smok"),
    ("demo", ["--output=OUT/x", "--size=96"], "need --film"),
    ("demo", ["--output=OUT/x", "--size=128x200"], "multiples of 64"),
    ("demo", ["--output=OUT/x", "--steps=3"], "only with --film"),
    ("demo", ["--output=OUT/x", "--film=OUT/none.mp4"], "none.mp4"),
    ("prepare", ["OUT/a.mp4", "--output=OUT/x", "--part=first"], "two shares"),
    ("prepare", ["OUT/a.mp4", "--output=OUT/x", "--part=0.8:0.2"], "two shares"),
  ],
)
def test_a_mistake_is_one_line(command, arguments, message, tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert run(command, *(argument.replace("OUT", str(tmp_path)) for argument in arguments)) == 2
  error = capsys.readouterr().err.strip()
  assert message in error and error.startswith("error: ") and "\n" not in error


@pytest.mark.parametrize(
  "arguments,message",
  [
    ([], "give --config"),
    (["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--config.stepz=3"], 'Did you mean "steps"'),
    (["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--config.steps=abc"], "invalid literal"),
    (["--config=CONFIGS/none.py", "--workdir=OUT"], "no config file"),
    (["--config=CONFIGS/studio_finetune.py:body", "--wrkdir=OUT"], "Did you mean: workdir"),
    (["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--process=1"], "all three or none"),
    (["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--config.data.path=OUT/x"], "no prepared folder"),
    (
      ["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--config.data.appearance=x"],
      "pose_channels is 'x'",
    ),
    (["--config=OUT/old.py", "--workdir=OUT", "--config.data.appearance=x"], "pose_channels is 'x'"),
    (["--config=OUT/old.py", "--workdir=OUT", "--config.data.pose_channels=x"], "pose_channels is 'x'"),
    (["--config=OUT/old.py", "--workdir=OUT"], "pose_channels is 'y'"),
    (["--config=OUT/config.json", "--workdir=OUT"], "Python files"),
    (["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT", "--config.data.stps=1"], 'setting "stps"'),
    (["--config=OUT/fails.py", "--workdir=OUT"], "fails.py, line 2: NameError"),
  ],
)
def test_a_mistake_in_training_is_one_line(arguments, message, tmp_path, capfd, fresh_flags):
  (tmp_path / "old.py").write_text(
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'data': {'appearance': 'y'}})\n"
  )
  (tmp_path / "config.json").write_text("{}")
  (tmp_path / "fails.py").write_text("def get_config():\n  return undefined\n")
  configs = pathlib.Path(__file__).resolve().parents[1] / "configs"
  filled = [argument.replace("OUT", str(tmp_path)).replace("CONFIGS", str(configs)) for argument in arguments]
  assert run("train", *filled) == 2
  error = capfd.readouterr().err
  lines = [line for line in error.strip().splitlines() if line.startswith("error: ")]
  assert len(lines) == 1 and message in lines[0] and "Traceback" not in error


@pytest.mark.parametrize("link", [False, True])
def test_generate_never_replaces_the_motion_video(link, tmp_path, capsys):
  video, output = tmp_path / "clip.mp4", tmp_path / ("link.mp4" if link else "clip.mp4")
  video.write_bytes(b"a film")
  if link:
    output.symlink_to(video)
  assert run("generate", f"--checkpoint={tmp_path}", f"--motion={video}", f"--output={output}") == 2
  assert "overwrite an input" in capsys.readouterr().err and video.read_bytes() == b"a film"


def test_a_camera_s_missing_landmark_model_is_reported_first(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("ANCHOR_JAX_LANDMARKS", str(tmp_path / "none"))
  monkeypatch.setattr(runtime, "enable_compilation_cache", lambda: None)
  (tmp_path / "body").mkdir()
  flags = [f"--checkpoint={tmp_path}", "--live", "--motion=camera:96", f"--output={tmp_path / 'a.mp4'}"]
  assert run("generate", *flags) == 2
  error = capsys.readouterr().err
  assert "landmark model" in error and "make landmarks" in error and error.count("\n") == 1
  assert run("generate", *flags, "--landmarks=mediapipe-heavy") == 2
  assert "python -m anchor_jax.landmarks --heavy" in capsys.readouterr().err


@pytest.mark.parametrize(
  "command", ["generate --checkpoint=studio --motion=m.mp4 --output=o.mp4", "prepare m.mp4 --output=o"]
)
def test_an_unknown_landmark_model_is_reported_before_the_film_is_read(command, capsys):
  assert run(*command.split(), "--landmarks=magic") == 2
  assert 'no landmark model "magic": use mediapipe, mediapipe-heavy' in capsys.readouterr().err


def test_undecodable_names_and_unusable_files_are_one_line(tmp_path, capsys, monkeypatch):
  odd = os.fsdecode(b"clip\xff.mp4")
  assert run("generate", f"--checkpoint={tmp_path}", f"--motion={odd}", "--output=a.mp4") == 2
  assert "not UTF-8" in capsys.readouterr().err

  def refused(*_):
    raise PermissionError(errno.EACCES, "Permission denied", "data/ana")

  monkeypatch.setattr("anchor_jax.core.cli.check_name", refused)
  assert run("prepare", "x.mp4", "--output=y") == 2
  assert capsys.readouterr().err == "error: cannot use data/ana: permission denied\n"


@pytest.mark.parametrize(
  "command,arguments",
  [
    ("generate", ["--checkpoint=OUT/x", "--motion=OUT/m", "--output=OUT/a.mp4"]),
    ("train", ["--config=CONFIGS/studio_finetune.py:body", "--workdir=OUT"]),
    ("demo", ["--output=OUT/x"]),
  ],
)
def test_commands_that_compile_use_the_compilation_cache(command, arguments, tmp_path, capfd, monkeypatch, fresh_flags):
  def stop():
    raise UserError("the cache was switched on")

  monkeypatch.setattr(runtime, "enable_compilation_cache", stop)
  configs = pathlib.Path(__file__).resolve().parents[1] / "configs"
  assert run(command, *(text.replace("OUT", str(tmp_path)).replace("CONFIGS", str(configs)) for text in arguments)) == 2
  assert "error: the cache was switched on" in capfd.readouterr().err


def test_an_error_ends_the_process_while_a_thread_compiles():
  code = """
import threading, time
from anchor_jax.core.cli import COMPILING, command, run
from anchor_jax.core.errors import UserError

@command
def main():
  threading.Thread(target=time.sleep, args=(600,), name=COMPILING).start()
  raise UserError("damaged")

run(main)
"""
  ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
  assert (ended.returncode, ended.stderr) == (2, "error: damaged\n")
