"""The published pi0.5 (arXiv 2504.16054), its flow alone: 3,353,433,872 parameters; fine-tuning recipe of openpi."""

from configs import base


def get_config():
    c = base.get_config()
    c.policy.name = "pi05"
    c.policy.prompt_length = 200  # the state is in the prompt
    c.data.prompt = "pi05"
    c.data.normalization = "quantile"  # so that the state's bins cover it
    return c
