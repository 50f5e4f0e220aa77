"""ACT in small on the same demonstrations as `pi0_metaworld`."""

from ml_collections import ConfigDict

from configs import act, pi0_metaworld
from configs.diffusion_policy_metaworld import SMALL_RESNET


def get_config():
    c = pi0_metaworld.get_config()
    small, c.policy = c.policy, act.get_config().policy
    for key in ("dtype", "cameras", "image_size", "state_dim", "action_dim", "chunk"):
        c.policy[key] = small[key]
    c.policy.resnet = ConfigDict(SMALL_RESNET)
    c.policy.update(dict(width=128, mlp=256, heads=4, encoder_depth=2, posterior_depth=2, latent=16))
    c.steps = 1_500
    c.optimizer.decay_steps = c.steps
    c.optimizer.peak = 5e-4
    c.validation.every = c.checkpoint.every = 500
    return c
