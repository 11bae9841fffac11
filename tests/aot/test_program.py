"""Reading what a compiler says: collectives in a program's text, and its refusals."""

import types

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dress import mesh
from supcon_jax.build import program

# lines as libtpu and the GPU compiler write them, cut short
SCHEDULED = """
HloModule jit_step, is_scheduled=true
%fused_computation.43 (param_0.109: bf16[4096,768], param_1.122: f32[]) -> bf16[4096,768] {
  %param_0.109 = bf16[4096,768]{1,0:T(8,128)(2,1)} parameter(0)
}
%all-reduce-scatter.7 (input: f32[1024,8]) -> f32[128,8] {
  %all-reduce.3 = f32[1024,8]{1,0} all-reduce(%input), channel_id=9, to_apply=%add
  ROOT %dynamic-slice.1 = f32[128,8]{1,0} dynamic-slice(%all-reduce.3, %c, %z)
}
%async_collective_fusion.2 (p: bf16[8,768]) -> bf16[64,768] {
  ROOT %all-gather.9 = bf16[64,768]{1,0} all-gather(%p), channel_id=4, dimensions={0}
}
%wrapped_reduce (p.1: f32[64]) -> f32[8] {
  ROOT %reduce-scatter.1 = f32[8]{0} reduce-scatter(%p.1), channel_id=5, to_apply=%add
}
ENTRY %main (x: bf16[4096,768]) -> f32[] {
  %cp.6 = (bf16[8,7]{1,0:T(8,128)(2,1)}, bf16[8,7]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%copy.202)
  %cp.7 = bf16[8,7]{1,0} collective-permute-done(%cp.6)
  %cp.8 = f32[4096]{0:T(1024)S(1)} collective-permute(%copy.203), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %all-reduce.10 = (f32[64]{0:T(1024)S(1)}, f32[64]{0}) all-reduce(%g.798, %g.797), channel_id=5, to_apply=%max
  %fusion.1 = f32[128,8]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.7
  %fusion.2 = bf16[64,768]{1,0} fusion(%x), kind=kCustom, calls=%async_collective_fusion.2
  %start.4 = ((f32[64]{0}), f32[8]{0}, u32[]) async-start(%g), calls=%wrapped_reduce
  %done.4 = f32[8]{0} async-done(%start.4)
  %name-all-gather-2 = f32[8]{0} add(%done.4, %done.4), metadata={op_name="all-gather"}
}
"""


def test_collectives_are_counted_by_kind_and_by_whether_they_overlap():
    assert program.collectives(SCHEDULED) == {
        "all-gather": {"asynchronous": 1, "synchronous": 0},
        "all-reduce": {"asynchronous": 0, "synchronous": 1},
        "collective-permute": {"asynchronous": 1, "synchronous": 1},
        "reduce-scatter": {"asynchronous": 1, "synchronous": 1},
    }
    assert program.collectives("ENTRY %main (x: f32[]) -> f32[] {\n  %y = f32[] add(%x, %x)\n}") == {}


def test_collectives_and_memory_of_a_program_for_this_machine():
    """All devices need all rows: one gather; a replicated sum: one reduction."""
    split = NamedSharding(mesh(8), PartitionSpec("data"))
    rows = jax.ShapeDtypeStruct((64, 16), "float32", sharding=split)
    whole = NamedSharding(mesh(8), PartitionSpec())
    compiled = jax.jit(lambda x: (x, x.sum()), out_shardings=whole).lower(rows).compile()
    assert program.collectives(compiled.as_text()) == {
        "all-gather": {"asynchronous": 0, "synchronous": 1}, "all-reduce": {"asynchronous": 0, "synchronous": 1}
    }  # fmt: skip
    found = program.memory(compiled)
    assert found["arguments"] == 64 * 16 * 4 // 8 and found["outputs"] >= 64 * 16 * 4 + 4
    assert set(found) == {"arguments", "outputs", "aliased", "temporaries", "peak"}


@pytest.mark.parametrize(
    "message, sizes",
    [
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
         "temporaries (38.02G) exceeds available HBM (15.75G). HLO module: jit_loss.", (38.02, 15.75)),
        ("RESOURCE_EXHAUSTED: the total memory required for HLO arguments and temporaries (1.50T) exceeds available HBM"
         " (15.75G).", (1536, 15.75)),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.20G of 15.75G hbm. Exceeded hbm capacity by "
         "2.45G.", (18.2, 15.75)),
    ],
)  # fmt: skip
def test_a_refusal_for_memory_tells_need_and_supply(message, sizes):
    assert program.too_large(message) == tuple(int(gib * 2**30) for gib in sizes)


@pytest.mark.parametrize("message", ["INTERNAL: Mosaic failed to compile", "RESOURCE_EXHAUSTED: Ran out of memory on VMEM", ""])
def test_another_refusal_is_none_for_memory(message):
    assert program.too_large(message) is None


def test_memory_is_read_by_the_compilers_names():
    said = types.SimpleNamespace(
        argument_size_in_bytes=1, output_size_in_bytes=2, alias_size_in_bytes=3, temp_size_in_bytes=4, peak_memory_in_bytes=5
    )
    found = program.memory(types.SimpleNamespace(memory_analysis=lambda: said))
    assert found == {"arguments": 1, "outputs": 2, "aliased": 3, "temporaries": 4, "peak": 5}
