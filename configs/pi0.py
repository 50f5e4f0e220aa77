"""The published pi0 (arXiv 2410.24164): 3,238,048,528 parameters; fine-tuning recipe of openpi."""

from configs import base


def get_config():
    return base.get_config()
