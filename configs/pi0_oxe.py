"""pi0 on Open X-Embodiment's "magic soup", octo's mixture of 25 data sets; weights multiply the numbers of frames.

The data sets lie in `data/oxe/<name>/<version>`, as TFDS has them in gs://gresearch/robotics. pi0's own training is not
published; this is the recipe of the paper (arXiv 2410.24164) on public data.
"""

from configs import pi0


def get_config():
    c = pi0.get_config()
    # c.init.weights = "runs/paligemma"  # imported from Google's pt_224 checkpoint: docs/models.md
    c.steps = 700_000  # of pre-training: section V
    c.batch_size = 2_048
    c.data.path = "data/oxe"
    c.data.mixture = "oxe_magic_soup"
    c.data.weighting = "size"  # "power" is pi0's own: frames^0.43, without octo's weights
    c.data.train_split = "train[:98%]"  # many of them have no other split
    c.data.val_split = "train[98%:]"
    c.data.cameras = dict(base_0_rgb="base", left_wrist_0_rgb="wrist")
    c.data.chunk_hz = 0.0  # 50 steps of each robot's own rate, as in the paper
    c.data.on_corrupt = "skip"  # some of these files are known to hold broken pictures
    c.data.cache_gb = 64.0
    c.data.threads = 16
    c.data.tokenizer = "data/paligemma_tokenizer.model"  # gs://big_vision/paligemma_tokenizer.model
    c.optimizer.decay_steps = c.steps
    c.validation.batches = 1  # of each data set
    return c
