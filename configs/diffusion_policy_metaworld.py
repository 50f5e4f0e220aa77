"""Diffusion Policy in small on the same demonstrations as `pi0_metaworld`: noise is predicted, DDIM acts.

The same network as a flow: --config.loss.path=straight --config.loss.prediction=u --config.policy.solver=euler
"""

from ml_collections import ConfigDict

from configs import diffusion_policy, pi0_metaworld

# Three halvings less than ResNet-18, and one block where it has two.
SMALL_RESNET = dict(widths=(32, 64, 128), depth=1)


def get_config():
    c, published = pi0_metaworld.get_config(), diffusion_policy.get_config()
    small, c.policy = c.policy, published.policy
    for key in ("dtype", "cameras", "image_size", "state_dim", "action_dim", "chunk"):
        c.policy[key] = small[key]
    c.policy.resnet = ConfigDict(SMALL_RESNET)
    c.policy.keypoints = 16
    c.policy.unet.update(dict(widths=(64, 128, 256), time=64))
    for key in ("path", "prediction", "time"):
        c.loss[key] = published.loss[key]
    c.data.normalization = "quantile"
    c.steps = 1_500
    c.optimizer.decay_steps = c.steps
    c.optimizer.peak = 5e-4
    c.validation.every = c.checkpoint.every = 500
    return c
