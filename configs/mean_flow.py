"""MeanFlow (arXiv 2505.13447): pi0 whose expert says mean velocities, so one step acts: 3,239,097,104 parameters."""

from configs import base


def with_mean_flow(c):
    """The config `c` of pi0 as one of MeanFlow."""
    p = c.policy
    p.name = "mean_flow"
    p.num_steps = 1
    p.flow_share = 0.75  # of the samples, which learn the flow itself; the others learn means over spans of time
    # Of the sines of times and spans. pi0's is 0.004, for which an error is 1,571 times larger in the derivative by
    # time that the mean learns from: then it did not learn. Weights of pi0 have to learn the time anew.
    p.shortest_period = 1.0
    # Gradients are divided by it of a chunk's squared error; 0 leaves them as they are. 1 is the paper's, for pictures:
    # docs/rivals.md has what it did to actions.
    p.error_power = 0.0
    c.loss.time = "logit_normal"
    return c


def get_config():
    return with_mean_flow(base.get_config())
