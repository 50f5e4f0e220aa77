"""Diffusion Policy's transformer (arXiv 2303.04137, section IV-A) as released for pictures: 20,173,730 parameters.

It reads no instruction. It sees one moment, where the published one sees two, a token each: those have 256 more.
"""

from ml_collections import ConfigDict

from configs import diffusion_policy


def get_config():
    c = diffusion_policy.get_config()
    p = c.policy.to_dict() | dict(
        name="diffusion_transformer",
        unroll=1,
        transformer=dict(width=256, depth=8, heads=4, mlp=1024),
        dropout=0.3,
    )
    del p["unet"]
    c.policy = ConfigDict(p)
    o = c.optimizer
    o.warmup = 1_000
    o.b1, o.b2 = 0.9, 0.95
    o.weight_decay = 1e-3  # published for the transformer, and 1e-6 for the cameras
    return c
