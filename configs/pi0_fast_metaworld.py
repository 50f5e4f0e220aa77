"""pi0-FAST in small on the same demonstrations as `pi0_metaworld`: actions as text, with a tokenizer of their own."""

from configs import pi05_metaworld


def with_tokens(c):
    """The config `c` with FAST tokens of its actions, ids behind those of the byte tokenizer."""
    c.policy.token_length = 40  # 38 at most in the training data
    c.policy.language.vocabulary = 259 + 128
    c.data.action_tokens.update(dict(kind="fast", vocabulary=128, skip=0))  # rarer tokens would be seen too seldom
    c.steps = 1_500
    c.optimizer.decay_steps = c.steps
    return c


def get_config():
    c = with_tokens(pi05_metaworld.get_config())
    c.policy.name = "pi0_fast"
    c.policy.openpi_positions = False
    del c.policy.expert, c.policy.solver, c.policy.num_steps
    c.data.prompt = "pi0_fast"
    return c
