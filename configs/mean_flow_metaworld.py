"""MeanFlow in small on the same demonstrations as `pi0_metaworld`."""

from configs import mean_flow, pi0_metaworld


def get_config():
    c = mean_flow.with_mean_flow(pi0_metaworld.get_config())
    c.steps = 1_000
    c.optimizer.decay_steps = c.steps
    c.validation.every = c.checkpoint.every = 500
    return c
