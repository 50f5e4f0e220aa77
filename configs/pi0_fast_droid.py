"""pi0-FAST on all of DROID: openpi's `pi0_fast_full_droid_finetune`, 100,000 steps of 256 rows.

Missing beside what `pi05_droid` lists: openpi shows pi0-FAST a black second exterior camera between the two.
"""

from configs import pi0_fast, pi05_droid


def get_config():
    c = pi05_droid.with_droid(pi0_fast.get_config())
    # c.init.weights = "runs/pi0_fast_base"  # gs://openpi-assets/checkpoints/pi0_fast_base, imported: docs/models.md
    c.policy.state_dim = 8
    c.policy.action_dim = 8
    c.policy.prompt_length = 90
    c.policy.token_length = 90  # with the prompt 180, openpi's max_token_len; the division is ours
    c.data.action_tokens.path = "data/fast"  # huggingface.co/physical-intelligence/fast, which the weights know
    return c
