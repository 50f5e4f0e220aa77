"""pi0 on LIBERO in low memory: openpi's `pi0_libero_low_mem_finetune`, adapters of rank 16 and 32, no average."""

from configs import pi0_libero, pi0_lora


def get_config():
    return pi0_lora.with_adapters(pi0_libero.get_config(), (pi0_lora.LANGUAGE, pi0_lora.EXPERT))
