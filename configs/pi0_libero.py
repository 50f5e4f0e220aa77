"""pi0 on LIBERO: openpi's `pi0_libero`, 30,000 steps of 32 rows at the schedule of `base`.

The data are OpenVLA's, four suites without idle steps (huggingface.co/datasets/openvla/modified_libero_rlds).
Missing: the recipe mixes all four, a run reads one. The simulator's frames are to be turned by 180 degrees, as the
recorded ones are, before `infer`.
"""

from configs import pi0


def with_libero(c):
    """The config `c` on LIBERO; cameras and fields have the names of `base`, state 8 numbers and action 7."""
    c.data.path = "data/modified_libero_rlds/libero_spatial_no_noops/1.0.0"
    c.data.train_split = "train[:98%]"  # openpi trains on all and validates on none
    c.data.val_split = "train[98%:]"
    c.data.tokenizer = "data/paligemma_tokenizer.model"  # gs://big_vision/paligemma_tokenizer.model
    c.env.execute = 5  # openpi's examples/libero
    return c


def get_config():
    c = with_libero(pi0.get_config())
    # c.init.weights = "runs/pi0_base"  # gs://openpi-assets/checkpoints/pi0_base, imported: docs/models.md
    c.data.delta = (6, -1)  # though LIBERO's actions are changes: its extra_delta_transform, kept for older weights
    return c
