"""pi0.5 on all of DROID: openpi's `pi05_full_droid_finetune`, 100,000 steps of 256 rows.

The data are version 1.0.1 (gs://gresearch/robotics/droid/1.0.1): 1.0.0 lacks most instructions. Missing:
  only episodes that succeeded (`.*success.*` in their file_path), and only the frames of openpi's
  droid_sample_ranges_v1_0_1.json, which are not idle;
  one of two exterior cameras per episode, at random; of three instructions one is drawn each time.
"""

from configs import pi05


def with_droid(c):
    """The config `c` on DROID's joint positions, with the schedule that openpi has for it."""
    c.steps = 100_000
    c.batch_size = 256
    c.policy.chunk = 16  # 1.07 s at 15 Hz
    c.data.path = "data/droid/1.0.1"
    c.data.train_split = "train[:99%]"  # openpi trains on all and validates on none
    c.data.val_split = "train[99%:]"
    c.data.embodiment = "droid_joint_position"
    c.data.cameras = dict(base_0_rgb="base", left_wrist_0_rgb="wrist")
    c.data.unlabelled = "skip"
    c.data.delta = (7, -1)  # joints relative, gripper absolute
    c.data.tokenizer = "data/paligemma_tokenizer.model"  # gs://big_vision/paligemma_tokenizer.model
    c.optimizer.peak = c.optimizer.end = 5e-5  # constant after 1,000 steps of warm-up
    c.checkpoint.every = 5_000
    c.env.execute = 8  # openpi's examples/droid
    return c


def get_config():
    c = with_droid(pi05.get_config())
    # c.init.weights = "runs/pi05_base"  # gs://openpi-assets/checkpoints/pi05_base, imported: docs/models.md
    # Missing: openpi normalises with the statistics in its assets/droid, not with those of the training split.
    return c
