"""Demonstrations in the toy, where language decides: a minute, no simulator to install."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.path = "data/reach_toy/1.0.0"
    c.name = "reach_toy"
    c.demonstrations = 50  # per task
    c.val_fraction = 0.1
    c.noise = 0.2
    c.steps_after_success = 4
    c.jpeg_quality = 95

    c.env = ConfigDict()
    c.env.name = "reach_toy"
    c.env.tasks = ("reach-red", "reach-blue")
    c.env.image_size = 32
    c.env.max_steps = 60
    c.env.execute = 8
    return c
