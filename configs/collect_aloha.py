"""Demonstrations of a scripted expert in ALOHA's `transfer_cube`: 90 seconds each on a CPU, most of it pictures."""

from configs import collect_metaworld


def get_config():
    c = collect_metaworld.get_config()
    c.path = "data/aloha_transfer_cube/1.0.0"
    c.name = "aloha_transfer_cube"
    c.demonstrations = 50
    c.noise = 0.005  # radians, and shares of a gripper's opening
    c.steps_after_success = 80  # until the right hand has let go
    c.env.name = "aloha"
    c.env.tasks = ("transfer_cube",)
    c.env.image_size = 640  # 480 x 640, as the published demonstrations
    c.env.max_steps = 400
    return c
