"""pi0.5 in small on the same demonstrations as `pi0_metaworld`: the state is in the prompt, the time in the norms."""

from configs import pi0_metaworld


def get_config():
    c = pi0_metaworld.get_config()
    c.policy.name = "pi05"
    c.policy.prompt_length = 80  # bytes: the instruction, four numbers and the words around them
    c.data.prompt = "pi05"
    c.data.normalization = "quantile"
    return c
