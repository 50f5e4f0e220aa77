"""pi0.5 on a real ALOHA: openpi's `pi05_aloha_pen_uncap`, 20,000 steps of 64 rows. The data: see `pi0_aloha`."""

from configs import pi0_aloha, pi05


def get_config():
    c = pi0_aloha.with_aloha(pi05.get_config())
    # c.init.weights = "runs/pi05_base"  # gs://openpi-assets/checkpoints/pi05_base, imported: docs/models.md
    c.batch_size = 64
    return c
