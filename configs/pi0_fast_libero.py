"""pi0-FAST on LIBERO: openpi's `pi0_fast_libero`, 30,000 steps of 32 rows at the schedule of `base`.

Missing: openpi shows pi0-FAST a black right wrist; a camera that a run lacks is left out here.
"""

from configs import pi0_fast, pi0_libero


def get_config():
    c = pi0_libero.with_libero(pi0_fast.get_config())
    # c.init.weights = "runs/pi0_fast_base"  # gs://openpi-assets/checkpoints/pi0_fast_base, imported: docs/models.md
    c.policy.state_dim = 8
    c.policy.action_dim = 7
    c.policy.chunk = 10
    c.policy.prompt_length = 90
    c.policy.token_length = 90  # with the prompt 180, openpi's max_token_len; the division is ours
    c.data.delta = (6, -1)  # as in pi0_libero
    c.data.action_tokens.path = "data/fast"  # huggingface.co/physical-intelligence/fast, which the weights know
    return c
