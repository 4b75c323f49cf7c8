"""Constant folding of traced functions: equations that depend on no input are computed once."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from anchor_jax.core.shapes import Array

# Call primitives and the parameter with their jaxpr: calls are inlined, so that a converter need not support them.
_CALLS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}


def fold(function: Callable[..., Array], inputs: Sequence[jax.ShapeDtypeStruct]) -> core.ClosedJaxpr:
  """Returns the function's jaxpr with only the equations that depend on the inputs.

  Closed-over values count as constants. This removes a third of the body's equations, among them all that depend only
  on the noise, the timestep and the image tokens.

  Args:
    function: from arrays to one array.
    inputs: shapes and types of its arguments.
  """
  traced = jax.make_jaxpr(function)(*inputs)
  return jax.make_jaxpr(lambda *values: _run(traced.jaxpr, traced.consts, values)[0])(*inputs)


def _run(jaxpr: core.Jaxpr, constants: Sequence[Any], values: Sequence[Any]) -> list[Any]:
  known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *values], strict=True))
  read = lambda name: name.val if isinstance(name, core.Literal) else known[name]
  for equation in jaxpr.eqns:
    operands = [read(name) for name in equation.invars]
    parameter = _CALLS.get(equation.primitive.name)
    if parameter is not None:
      inner = equation.params[parameter]
      results = _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
    elif any(isinstance(value, jax.core.Tracer) for value in operands):
      results = equation.primitive.bind(*operands, **equation.params)
    else:
      with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*operands, **equation.params)
    results = results if parameter is not None or equation.primitive.multiple_results else [results]
    known.update(zip(equation.outvars, results, strict=True))
  return [read(name) for name in jaxpr.outvars]
