"""pi0 on a real ALOHA: openpi's `pi0_aloha_pen_uncap`, 20,000 steps of 32 rows; the rate is still falling at the end.

The data (huggingface.co/datasets/physical-intelligence/aloha_pen_uncap_diverse) are no RLDS yet: convert them once,
with the names of Open X-Embodiment's aloha_mobile. Missing, so do it in the conversion and undo it before the robot:
openpi flips the sign of joints 1 and 2 (from 0) of both arms and turns gripper openings into angles, as its weights
know them. It also normalises with the statistics in its assets/trossen, not with those of the training split.
"""

from configs import pi0


def with_aloha(c):
    """The config `c` on two arms at 50 Hz: state and action are six joints and a gripper, left and right."""
    c.steps = 20_000
    c.data.path = "data/aloha_pen_uncap_diverse/1.0.0"
    c.data.train_split = "train[:98%]"  # openpi trains on all and validates on none
    c.data.val_split = "train[98%:]"
    c.data.cameras = dict(base_0_rgb="cam_high", left_wrist_0_rgb="cam_left_wrist", right_wrist_0_rgb="cam_right_wrist")
    c.data.delta = (6, -1, 6, -1)  # joints relative, grippers absolute
    c.data.tokenizer = "data/paligemma_tokenizer.model"  # gs://big_vision/paligemma_tokenizer.model
    c.env.execute = 25  # half a second, openpi's examples/aloha_real
    return c


def get_config():
    c = with_aloha(pi0.get_config())
    # c.init.weights = "runs/pi0_base"  # gs://openpi-assets/checkpoints/pi0_base, imported: docs/models.md
    return c
