"""pi0.5 with knowledge insulation, and adapters in both experts."""

from configs import pi0_lora, pi05_insulated


def get_config():
    return pi0_lora.with_adapters(pi05_insulated.get_config(), (pi0_lora.LANGUAGE, pi0_lora.EXPERT))
