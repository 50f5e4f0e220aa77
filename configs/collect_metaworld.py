"""Demonstrations of MetaWorld's scripted expert: `python -m launch.collect --config=configs/collect_metaworld.py`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # start states and noise follow from it
    c.path = "data/metaworld_button_press/1.0.0"  # the final folder: what config.data.path of a training run names
    c.name = "metaworld_button_press"  # of the data set; <data_dir>/<name>/<version> suits tfds.load too
    c.demonstrations = 40  # successful episodes per task in the split "train"
    c.val_fraction = 0.1  # share of all episodes in the split "val", collected on top of these
    c.noise = 0.2  # standard deviation added to the executed action, never to the label: it shows how to recover
    c.steps_after_success = 8  # kept, so that the policy learns to stay
    c.jpeg_quality = 95

    c.env = ConfigDict()
    c.env.name = "metaworld"
    c.env.tasks = ("button-press-topdown-v3",)
    c.env.image_size = 64  # pixels
    c.env.max_steps = 150  # without success by then, the episode is dropped
    c.env.execute = 8  # of no effect here; part of every environment's config
    return c
