"""The estimated time of a small TPU program: loops, kernels, collectives, kinds and modules."""

import pytest

from anchor_jax.compiler.chips import Chip
from anchor_jax.compiler.estimate import estimate, module_of, parse_computations, trip_count

CHIP = Chip(flops=1e12, memory=1, clock=1e9, bandwidth=1e9, link=1e6)
CYCLES = 'backend_config={"window_config":{"estimated_cycles":"1000000"}}'
TEXT = f"""
HloModule jit_step, is_scheduled=true

%conv (p: bf16[8]) -> bf16[8] {{
  %p = bf16[8]{{0}} parameter(0)
  ROOT %c = bf16[8]{{0}} convolution(%p, %p), metadata={{op_name="jit(step)/Net/down_3/conv1/conv_general_dilated"}}
}}

%dot (p: bf16[8]) -> bf16[8] {{
  ROOT %d = bf16[8]{{0}} convolution(%p, %p), metadata={{op_name="jit(step)/jvp()/while/body/Net/to_q/dot_general"}}
}}

%scale (p: bf16[8]) -> bf16[8] {{
  ROOT %m = bf16[8]{{0}} multiply(%p, %p), metadata={{op_name="jit(step)/Net/norm1/mul"}}
}}

%start (p: f32[1000]) -> f32[2000] {{
  ROOT %g = f32[2000]{{0}} all-gather(%p), channel_id=2, replica_groups={{{{0,1}}}}, dimensions={{0}}
}}

%below (s: (s32[], bf16[8])) -> pred[] {{
  %three = s32[] constant(3)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}}

%round (s: (s32[], bf16[8])) -> (s32[], bf16[8]) {{
  %a = (bf16[8]{{0:T(8,128)(2,1)}}, /*index=1*/bf16[8]{{0}}) fusion(%x), kind=kOutput, calls=%dot, {CYCLES}
  %h = f32[2000]{{0}} fusion(%x), kind=kLoop, calls=%start
}}

%unknown (s: (s32[], bf16[8])) -> pred[] {{
  ROOT %lt2 = pred[] compare(%i, %n), direction=LT
}}

ENTRY %main (x: bf16[8]) -> bf16[8] {{
  %x = bf16[8]{{0}} parameter(0)
  %f = bf16[8]{{0}} fusion(%x), kind=kOutput, calls=%conv, {CYCLES}
  %n = bf16[8]{{0}} fusion(%x), kind=kLoop, calls=%scale, {CYCLES}
  %y = bf16[8]{{0}} copy(%x), {CYCLES}
  %w = (s32[], bf16[8]) while(%t), condition=%below, body=%round
  %v = (s32[], bf16[8]) while(%t), condition=%unknown, body=%round
  %splash_mha_fwd.3 = bf16[1,2,100,40]{{3,2,1,0}} custom-call(%m, %q, %k, %v), \
custom_call_target="tpu_custom_call", operand_layout_constraints={{s8[4]{{0}}, bf16[1,2,100,40]{{3,2,1,0}}, \
bf16[1,2,50,40]{{3,2,1,0}}, bf16[1,2,50,40]{{3,2,1,0}}}}
  %splash_mha_dq.1 = (f32[100,40]{{1,0}}, bf16[2,100,40]{{2,1,0}}) custom-call(%m, %q, %k, %v), \
custom_call_target="tpu_custom_call", operand_layout_constraints={{s8[4]{{0}}, bf16[2,40,100]{{2,1,0}}, \
bf16[2,40,50]{{2,1,0}}, bf16[2,40,50]{{2,1,0}}}}, frontend_attributes={{kernel_metadata={{
  "of several": "lines"
}}}}, metadata={{op_name="jit(step)/Net/attn1/splash_mha_dq/pallas_call"}}
  %r = f32[1000]{{0}} all-reduce(%z), channel_id=1, replica_groups={{{{0,1}}}}, to_apply=%add
}}
"""


def test_every_kind_counts_as_often_as_it_runs():
  found = estimate(TEXT, CHIP, unknown_trips=10)
  assert found.kinds == pytest.approx(
    {
      "convolution": 1e-3,
      "normalization": 1e-3,
      "copies": 1e-3,
      "matrix product": 13e-3,  # three rounds of one loop, ten of the loop with unknown trip count
      # Memory takes longest: 24,000 elements of two bytes and 4 more; the second kernel also has 4,000 of four bytes.
      "attention": 48.004e-6 + 64.004e-6,
      "collectives": 4e-3,
    }
  )
  assert found.unknown_loops == 1 and found.unestimated == 0
  assert found.groups["attention", "Net/attn1/splash_mha_dq"] == pytest.approx(64.004e-6)  # named on its third line
  assert found.hidden == pytest.approx(13 * 4e-3)
  assert found.seconds == pytest.approx(found.hidden + 4e-3)  # here the links take longest
  assert found.groups["convolution", "Net/down_*/conv1"] == pytest.approx(1e-3)
  assert found.groups["matrix product", "Net/to_q"] == pytest.approx(13e-3)
  assert "convolution: Net/down_*/conv1" in found.table() and "without a known trip count: 1" in found.table()


def test_a_kernel_is_bound_by_its_padded_products_or_by_its_logits():
  fast = Chip(flops=1e9, memory=1, clock=1e9, bandwidth=1e15, link=1e6)
  assert estimate(TEXT, fast).kinds["attention"] == pytest.approx((2 + 3) * 2 * 10_000 * 128 / 1e9)
  vector = Chip(flops=1e15, memory=1, clock=1e3, bandwidth=1e15, link=1e6)
  assert estimate(TEXT, vector).kinds["attention"] == pytest.approx(2 * 10 * 10_000 / (4096 * 1e3))


def test_trip_counts_are_parsed_or_unknown():
  computations, entry = parse_computations(TEXT)
  loops = {i.name: i for i in computations[entry] if i.op == "while"}
  assert trip_count(computations, loops["w"]) == 3 and trip_count(computations, loops["v"]) is None


def test_module_names_omit_what_jax_adds():
  name = "jit(step)/transpose(jvp(Net))/while/body/closed_call/checkpoint/Net/up_blocks_2/resnets_1/conv1/mul"
  assert module_of(name) == "Net/up_blocks_*/resnets_*/conv1"
  again = "jit(step)/transpose(jvp(Net))/Net/up_2.up/up_2.layer/jvp(Net)/Net/up_2.up/up_2.layer/checkpoint/norm/mul"
  assert module_of(again) == "Net/up_*/norm"
  assert module_of("") == "(no module)"
