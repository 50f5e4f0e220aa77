"""pi0.5 on LIBERO: openpi's `pi05_libero`, 30,000 steps of 256 rows. The policy is told no state by any way."""

from configs import pi0_libero, pi05


def get_config():
    c = pi0_libero.with_libero(pi05.get_config())
    # c.init.weights = "runs/pi05_base"  # gs://openpi-assets/checkpoints/pi05_base, imported: docs/models.md
    c.batch_size = 256
    c.policy.chunk = 10
    c.data.prompt = "pi0"  # its discrete_state_input is off; prompt_length stays 200
    c.optimizer.warmup = 10_000
    c.optimizer.peak = c.optimizer.end = 5e-5  # constant after the warm-up
    c.optimizer.ema = 0.999
    return c
