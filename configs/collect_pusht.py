"""Demonstrations of a planner in PushT; the published ones, `lerobot/pusht`, are human. Five seconds each."""

from configs import collect_metaworld


def get_config():
    c = collect_metaworld.get_config()
    c.path = "data/pusht/1.0.0"
    c.name = "pusht"
    c.demonstrations = 200
    c.noise = 4.0  # pixels of 512
    c.steps_after_success = 0  # as the benchmark, which ends there
    c.env.name = "pusht"
    c.env.tasks = ("push-t",)
    c.env.image_size = 96
    c.env.max_steps = 300
    return c
