"""Asking the TPU compiler, with a TPU's compiler and without: what it says, and what may be in a program."""

import jax
import numpy as np
import pytest

from anchor_jax import parallel
from anchor_jax.config import MeshConfig
from anchor_jax.errors import UserError
from anchor_jax.training.aot import collective_bytes, compile_for, step_shapes

TEXT = """
  %a = f32[8,128]{1,0:T(8,128)} all-gather(%x), dimensions={0}
  %b = (f32[16]{0}, /*index=1*/bf16[4,4]{1,0}) all-reduce(%y, %z), to_apply=%add
  %c = (f32[2]{0}, f32[8]{0}) all-gather-start(%w)
  %d = f32[8]{0} all-gather-done(%c)
  ROOT %e = f32[3]{0} add(%f, %g)
"""


def test_counts_the_bytes_of_collectives():
  assert collective_bytes(TEXT) == {"all-gather": 4096 + 32, "all-reduce": 64 + 32}


@pytest.mark.parametrize(
  "mesh,wanted,unwanted",
  [
    (MeshConfig(data=8), {"all-reduce"}, {"all-gather", "all-to-all"}),
    pytest.param(MeshConfig(data=1, fsdp=8), {"all-gather"}, set(), marks=pytest.mark.slow),
  ],
)
def test_a_mesh_s_collectives_are_the_expected(tiny_run, mesh, wanted, unwanted, monkeypatch):
  monkeypatch.setattr(parallel, "_SMALLEST_SHARDED", 256)
  config = tiny_run("body", mesh=mesh)
  made = parallel.make_mesh(config.mesh)
  step, arguments = step_shapes(config, made)
  with parallel.use_mesh(made):
    found = collective_bytes(step.lower(*arguments).compile().as_text())
  assert wanted <= set(found) and not unwanted & set(found)


@pytest.mark.slow
def test_the_real_compiler_says_whether_a_step_fits(tiny_run):
  pytest.importorskip("libtpu")
  answer = compile_for("v5e:2x2", tiny_run("body", mesh=MeshConfig(data=2, fsdp=2)))
  assert answer.devices == 4 and answer.fits and answer.memory == 16 * 10**9
  assert answer.arguments > 0 and answer.flops > 0 and "all-reduce" in answer.collectives
  assert "fits" in answer.table()


def test_a_topology_that_is_none_is_refused_in_one_line(tiny_run):
  with pytest.raises(UserError, match="no compiler for v9z"):
    compile_for("v9z:1x1", tiny_run("body"))
  assert np.isfinite(jax.device_count())
