"""Regression in small on the same demonstrations as `pi0_metaworld`: its backbone and expert, without the flow."""

from configs import pi0_metaworld


def get_config():
    c = pi0_metaworld.get_config()
    c.policy.name = "regression"
    del c.policy.solver, c.policy.num_steps
    c.steps = c.optimizer.decay_steps = 1_500  # a flow learns from four draws of each chunk, this from the chunk
    c.validation.every = c.checkpoint.every = 500
    return c
