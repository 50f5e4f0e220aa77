"""Actions as text in the manner of RT-2 (arXiv 2307.15818): `pi0_fast_metaworld` with 256 bins for each number.

RT-2 writes one step at a time: --config.policy.chunk=1 --config.policy.token_length=14 --config.env.execute=1
"""

from configs import pi0_fast_metaworld


def get_config():
    c = pi0_fast_metaworld.get_config()
    c.data.action_tokens.kind = "bins"
    c.policy.chunk = 4
    c.policy.token_length = 26  # "Action: " of 8 bytes, 4 numbers for each step, "|", and the end
    c.policy.language.vocabulary = 259 + 256
    c.env.execute = c.policy.chunk
    return c
