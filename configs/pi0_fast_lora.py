"""pi0-FAST with adapters, 2,951,204,592 parameters: openpi's low-memory recipe."""

from configs import pi0_fast, pi0_lora


def get_config():
    return pi0_lora.with_adapters(pi0_fast.get_config(), (pi0_lora.LANGUAGE,))
