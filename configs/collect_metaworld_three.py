"""Demonstrations of three tasks that only pictures and words tell apart, for one language-conditioned policy."""

from configs import collect_metaworld


def get_config():
    c = collect_metaworld.get_config()
    c.path = "data/metaworld_three/1.0.0"
    c.name = "metaworld_three"
    c.demonstrations = 100  # per task: reach-v3 has goals all over a box in space, and needs them
    c.env.tasks = ("button-press-topdown-v3", "button-press-v3", "reach-v3")
    return c
