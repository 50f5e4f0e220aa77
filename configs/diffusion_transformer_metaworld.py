"""Diffusion Policy's transformer in small on the same demonstrations as `diffusion_policy_metaworld`."""

from ml_collections import ConfigDict

from configs import diffusion_policy_metaworld, diffusion_transformer


def get_config():
    c = diffusion_policy_metaworld.get_config()
    p = diffusion_transformer.get_config().policy
    for key in set(p) & set(c.policy) - {"name"}:
        p[key] = c.policy[key]
    p.transformer = ConfigDict(dict(width=128, depth=4, heads=4, mlp=256))
    p.dropout = 0.1
    p.unroll = 4
    c.policy = p
    c.steps = c.optimizer.decay_steps = 1_000
    return c
