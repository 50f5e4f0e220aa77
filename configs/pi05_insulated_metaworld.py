"""pi0.5 with knowledge insulation, in small: the backbone learns FAST tokens, the expert the flow."""

from configs import pi0_fast_metaworld, pi05_metaworld


def get_config():
    c = pi0_fast_metaworld.with_tokens(pi05_metaworld.get_config())
    c.policy.name = "pi05_insulated"
    c.steps = 2_000
    c.optimizer.decay_steps = c.steps
    # Coarser than acting on tokens would need: the expert adds precision, and fine ones are learnt by heart.
    c.data.action_tokens.update(dict(scale=5.0, vocabulary=64))
    return c
