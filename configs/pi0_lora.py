"""pi0 with adapters in both experts, 3,288,036,112 parameters: openpi's low-memory recipe.

As openpi does it trains the whole vision tower; add r"backbone/vision/.*" to `freeze.params` to leave it as it is.
"""

from configs import pi0

LANGUAGE = dict(modules=r"backbone/language/layers/(attention|feed_forward)/.*", rank=16, alpha=16.0)
EXPERT = dict(modules=r"expert/layers/(attention|feed_forward)/.*", rank=32, alpha=32.0)


def with_adapters(c, rules):
    """The config `c` with the language model, and the expert if it has a rule, frozen but for adapters."""
    c.policy.lora.rules = rules
    c.freeze.params = (r"backbone/(embedding|language/.*)", r"expert/.*")[: len(rules)]
    c.freeze.dtype = "bfloat16"
    c.optimizer.ema = 0.0  # openpi averages no adapters
    return c


def get_config():
    return with_adapters(pi0.get_config(), (LANGUAGE, EXPERT))
