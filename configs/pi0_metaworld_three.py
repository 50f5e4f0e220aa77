"""One small pi0 for three MetaWorld tasks, told what to do in words; data of configs/collect_metaworld_three.py."""

from configs import pi0_metaworld


def get_config():
    c = pi0_metaworld.get_config()
    c.steps = 1_500
    c.optimizer.decay_steps = c.steps
    c.policy.prompt_length = 40  # bytes of the longest instruction, and its ends
    c.data.path = "data/metaworld_three/1.0.0"
    c.env.tasks = ("button-press-topdown-v3", "button-press-v3", "reach-v3")
    return c
