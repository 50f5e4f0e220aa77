"""Regression in small on the same demonstrations as `pi0_metaworld`: its backbone and expert, without the flow."""

from configs import pi0_metaworld


def get_config():
    c = pi0_metaworld.get_config()
    c.policy.name = "regression"
    del c.policy.solver, c.policy.num_steps
    return c
