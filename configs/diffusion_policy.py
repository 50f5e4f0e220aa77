"""Diffusion Policy with convolutions (arXiv 2303.04137) in the sizes of its PushT experiment: 260,816,674 parameters.

It reads no instruction. It sees one moment, where the published one sees two: those have 262,709,026 parameters.
"""

from ml_collections import ConfigDict

from configs import base


def get_config():
    c = base.get_config()
    c.steps = 200_000
    c.batch_size = 64
    c.policy = ConfigDict(
        dict(
            name="diffusion_policy",
            dtype="bfloat16",
            cameras=("base_0_rgb",),
            image_size=96,
            state_dim=2,
            action_dim=2,
            chunk=16,
            resnet=dict(widths=(64, 128, 256, 512), depth=2),  # ResNet-18, one for each camera
            keypoints=32,  # places in each picture that the chunk depends on
            unet=dict(widths=(512, 1024, 2048), kernel=5, groups=8, time=128),
            solver="ddim",  # or "ddpm" with 100 steps, as in the paper's simulations
            num_steps=10,
            # Bound of the actions that the prediction is taken to mean: near t = 1 the noise says little of them, and
            # without a bound they are far outside. 0: none. Published 1.0, of actions whose extremes are -1 and 1.
            clip=1.5,
        )
    )
    c.loss.path = "ddpm_cosine"
    c.loss.prediction = "eps"
    c.loss.time = "uniform"
    c.data.cameras = ConfigDict(dict(base_0_rgb="image"))
    c.data.normalization = "quantile"
    c.env.update(dict(name="pusht", tasks=("push-t",), image_size=96, max_steps=300, execute=8))
    o = c.optimizer
    o.peak, o.end, o.warmup, o.decay_steps = 1e-4, 0.0, 500, c.steps
    o.b1, o.b2, o.weight_decay = 0.95, 0.999, 1e-6
    o.ema = 0.999  # published: rising to 0.9999
    return c
