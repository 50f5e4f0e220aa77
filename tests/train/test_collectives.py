from pizero_jax.train.collectives import Exchange, exchanges

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (x: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %sent = bf16[4,8]{1,0} collective-permute(%y), source_target_pairs={{0,1},{1,0}}
}

%layer (x: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %gather = (bf16[1,8]{1,0}, bf16[4,8]{1,0}) all-gather-start(%y), dimensions={0}
  %gathered = bf16[4,8]{1,0} all-gather-done(%gather)
  %loop = (s32[], bf16[4,8]) while(%t), condition=%less_than_3, body=%inner
}

%less (x: (s32[], bf16[4,8])) -> pred[] {
  ROOT %is = pred[] compare(%i, %n), direction=LT
}

%less_than_3 (x: (s32[], bf16[4,8])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  ROOT %is = pred[] compare(%i, %three), direction=LT
}

%unused (x: f32[2]) -> f32[2] {
  %never = f32[2]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (x: bf16[4,8]) -> f32[3] {
  %layers = (s32[], bf16[4,8]) while(%t), condition=%less, body=%layer, backend_config={"known_trip_count":{"n":"18"}}
  %both = (f32[3]{0}, f32[2,2]{1,0}) all-reduce(%x, %y), to_apply=%add
}
"""


def test_exchanges_in_loops_count_once_for_each_iteration():
    assert exchanges(PROGRAM) == [
        Exchange("all-gather", 1, 18, 18 * 4 * 8 * 2),
        Exchange("all-reduce", 1, 1, (3 + 4) * 4),
        Exchange("collective-permute", 1, 3 * 18, 3 * 18 * 4 * 8 * 2),
    ]


def test_a_program_of_one_device_exchanges_nothing():
    assert exchanges("ENTRY %main (x: f32[]) -> f32[] {\n  ROOT %y = f32[] add(%x, %x)\n}\n") == []
