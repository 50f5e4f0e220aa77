"""pi0.5 with adapters in both experts; the expert's norms are frozen with it, as in openpi."""

from configs import pi0_lora, pi05


def get_config():
    return pi0_lora.with_adapters(pi05.get_config(), (pi0_lora.LANGUAGE, pi0_lora.EXPERT))
