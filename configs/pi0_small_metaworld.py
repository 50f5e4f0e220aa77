"""pi0-small in even smaller, on the same demonstrations as `pi0_metaworld`."""

from ml_collections import ConfigDict

from configs import pi0_metaworld, pi0_small


def get_config():
    c = pi0_metaworld.get_config()
    small, c.policy = c.policy, pi0_small.get_config().policy
    for key in set(c.policy) - {"name", "language", "observation", "expert"}:
        c.policy[key] = small[key]
    c.policy.language.update(dict(width=64, depth=1, heads=2, mlp=128))
    c.policy.observation = ConfigDict(dict(width=128, depth=2, heads=4, mlp=256))
    c.policy.expert = ConfigDict(dict(width=128, depth=4, heads=4, mlp=256))
    return c
