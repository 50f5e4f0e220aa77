"""The backbone and expert of pi0 say the chunk at once (OpenVLA-OFT, arXiv 2502.19645): 3,234,875,152 parameters."""

from configs import base


def get_config():
    c = base.get_config()
    c.policy.name = "regression"
    c.policy.chunk = 8  # OpenVLA-OFT's for LIBERO
    del c.policy.solver, c.policy.num_steps
    c.data.normalization = "quantile"
    return c
