"""A shortcut model (arXiv 2410.12557): pi0 whose expert says steps of any size: 3,239,097,104 parameters."""

from configs import base


def with_shortcuts(c):
    """The config `c` of pi0 as one of a shortcut model."""
    p = c.policy
    p.name = "shortcut"
    p.num_steps = 1  # or 2, 4, 8, ..: steps are halves of halves
    p.flow_share = 0.75  # of the samples, which learn the flow itself; the others learn that a step is two halves
    p.halvings = 7  # the smallest step, the flow itself, is 1/128
    p.shortest_period = 4e-3  # of the sines of times and spans: pi0's, so that its weights start it
    p.error_power = 0.0  # gradients are divided by it of a chunk's squared error; 0 leaves them as they are
    c.loss.time = "uniform"
    return c


def get_config():
    return with_shortcuts(base.get_config())
