"""Low-rank adapters beside a matrix (LoRA, arXiv 2106.09685): which matrix has one, and the products that it takes.

W becomes W + (alpha / rank) A B. A replaces the last letter of W's equation that comes out by the rank, B the last one
that is summed over; what else W has, such as heads, both have: each head has its own A and B.
"""

import re
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.config import LoraConfig, LoraRule

NONE = LoraConfig(rules=(), openpi=False)


class Products(NamedTuple):
    """Letters of A and B, the products x A and (x A) B, and the product A B of the shape of W."""

    a: str
    b: str
    down: str
    up: str
    merged: str


def rule_for(module: str, config: LoraConfig) -> LoraRule | None:
    """The first rule whose pattern fits the whole path of the module, such as "expert/layers/attention/q"."""
    return next((rule for rule in config.rules if re.fullmatch(rule.modules, module)), None)


def products(equation: str, openpi: bool = False) -> Products:
    """For a product with W such as "...D,NDH->...NH".

    openpi sums over the heads of x A before it multiplies by B, where W's own product sums over them, too: each head
    of A then meets the sum of the heads of B.
    """
    (x, w), y = equation.split("->")[0].split(","), equation.split("->")[1]
    summed = [letter for letter in w if letter not in y]
    a, b = w.replace([letter for letter in w if letter in y][-1], "r"), w.replace(summed[-1], "r")
    gone = summed if openpi else summed[-1:]
    middle = "..." + "".join(letter for letter in a if letter not in gone)
    apart = "".join(letter.lower() if letter in gone else letter for letter in b)
    return Products(a, b, f"{x},{a}->{middle}", f"{middle},{b}->{y}", f"{a},{apart}->{w}")


def scale(equation: str, rule: LoraRule, openpi: bool) -> float:
    """Alpha / rank; openpi leaves it out where there are no heads (its feed-forward)."""
    heads = "N" in equation or "K" in equation
    return rule.alpha / rule.rank if heads or not openpi else 1.0


def merged(
    kernel: Float[Array, "..."],
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    equation: str,
    rule: LoraRule,
    openpi: bool,
) -> Float[Array, "..."]:
    """The weight that does alone what W, A and B do together; all may carry a leading layer axis."""
    left, right = products(equation, openpi).merged.split("->")
    first, second = left.split(",")
    delta = jnp.einsum(f"...{first},...{second}->...{right}", a, b)
    return kernel + (scale(equation, rule, openpi) * delta).astype(kernel.dtype)
