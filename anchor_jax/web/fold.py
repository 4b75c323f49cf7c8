"""Traced functions without the equations that depend on no input: their values are computed once, and kept."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from anchor_jax.core.shapes import Array

# Calls of functions, by what holds the function: they are written out, so that a converter need not know them.
_CALLS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}


def fold(function: Callable[..., Array], inputs: Sequence[jax.ShapeDtypeStruct]) -> core.ClosedJaxpr:
  """Returns the function as equations of primitives, of which only those are left that depend on the inputs.

  What it closes over counts as constant. A third of the body's equations go, among them all that depends on the noise,
  the timestep and the person's tokens alone.

  Args:
    function: of arrays, to one array.
    inputs: shapes and types of its arguments.
  """
  traced = jax.make_jaxpr(function)(*inputs)
  return jax.make_jaxpr(lambda *values: _run(traced.jaxpr, traced.consts, values)[0])(*inputs)


def _run(jaxpr: core.Jaxpr, constants: Sequence[Any], values: Sequence[Any]) -> list[Any]:
  known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *values], strict=True))
  read = lambda name: name.val if isinstance(name, core.Literal) else known[name]
  for equation in jaxpr.eqns:
    given = [read(name) for name in equation.invars]
    held = _CALLS.get(equation.primitive.name)
    if held is not None:
      inner = equation.params[held]
      made = _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
    elif any(isinstance(value, jax.core.Tracer) for value in given):
      made = equation.primitive.bind(*given, **equation.params)
    else:
      with jax.ensure_compile_time_eval():
        made = equation.primitive.bind(*given, **equation.params)
    made = made if held is not None or equation.primitive.multiple_results else [made]
    known.update(zip(equation.outvars, made, strict=True))
  return [read(name) for name in jaxpr.outvars]
