"""pi0 on the simulated ALOHA: openpi's `pi0_aloha_sim`, 20,000 steps of 32 rows with one camera and absolute actions.

openpi's data (lerobot/aloha_sim_transfer_cube_human) are no RLDS; these are the scripted episodes of the same task that
Octo publishes (rail.eecs.berkeley.edu/datasets/example_sim_data.zip). Signs and grippers: see `pi0_aloha`.
"""

from configs import pi0_aloha


def get_config():
    c = pi0_aloha.get_config()
    c.data.path = "data/aloha_sim_cube_scripted_dataset/1.0.0"
    c.data.cameras = dict(base_0_rgb="top")
    c.data.delta = ()
    c.env.execute = 10  # openpi's examples/aloha_sim
    return c
