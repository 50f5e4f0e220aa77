"""pi0.5 with knowledge insulation (arXiv 2505.23705): the backbone learns FAST tokens, the expert the flow."""

from configs import pi05


def get_config():
    c = pi05.get_config()
    c.policy.name = "pi05_insulated"
    c.policy.token_length = 160  # 30 tokens per arm and second are usual (arXiv 2501.09747, table I)
    c.loss.flow_weight = 1.0  # their alpha: the two losses reach different parameters
    c.data.action_tokens.kind = "fast"
    return c
