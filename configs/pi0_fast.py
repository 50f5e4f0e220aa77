"""The published pi0-FAST (arXiv 2501.09747): 2,923,335,408 parameters; fine-tuning recipe of openpi."""

from configs import base


def get_config():
    c = base.get_config()
    p = c.policy
    p.name = "pi0_fast"
    p.prompt_length = 90  # with the action tokens 250, openpi's length of both together
    p.token_length = 160
    p.openpi_positions = False  # True: absent cameras take positions in training, and acting skips one
    del p.expert, p.solver, p.num_steps  # the backbone writes the actions itself
    c.data.prompt = "pi0_fast"
    c.data.normalization = "quantile"
    c.data.action_tokens.kind = "fast"
    return c
