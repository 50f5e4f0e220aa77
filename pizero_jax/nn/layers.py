"""Small layers that every network uses: weights with their sharding, linear maps, convolutions, norms, embeddings."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from pizero_jax.config import LoraConfig, LoraRule
from pizero_jax.nn import lora as low_rank
from pizero_jax.types import Policy


def fan_in(in_axis: int | Sequence[int], out_axis: int | Sequence[int], scale: float = 1.0) -> Callable:
    """Normal initialiser of variance `scale` / fan-in, the axes being those of the weight without its layer axis."""
    return nn.initializers.variance_scaling(scale, "fan_in", "normal", in_axis=in_axis, out_axis=out_axis)


def weight(module: nn.Module, name: str, shape: Sequence[int], axes: Sequence[str | None], init: Callable) -> Array:
    """The parameter `name` of `module`: its shape, its logical axes (for sharding) and its initialiser in one place.

    Acting, it may be int8, times the scale that then lies beside it (`serve/quantize.py`).
    """
    found = module.param(name, nn.with_logical_partitioning(init, tuple(axes)), tuple(shape), jnp.float32)
    scale = module.get_variable("params", f"{name}_scale")
    return found if scale is None else found * scale


KEPT = {  # by `config.policy.remat`, what a layer keeps for its backward pass beside its input
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("q", "k", "v", "attended"),
}


def rematted(layer: type[nn.Module], remat: str) -> type[nn.Module]:
    """The module `layer`, which computes again in the backward pass what `remat` says; for use inside of a scan."""
    return layer if remat == "none" else nn.remat(layer, prevent_cse=False, policy=KEPT[remat])


class Linear(nn.Module):
    """x times a weight as `equation` says, such as "...D,NDH->...NH" for queries; with a bias if asked for.

    Where a rule of `lora` fits the path of the module it has an adapter (`nn/lora.py`), whose product is added to W's:
    so no gradient of the size of W arises where W is frozen.
    """

    equation: str
    shape: Sequence[int]
    axes: Sequence[str | None]  # logical, of the weight
    dtype: str
    lora: LoraConfig = low_rank.NONE
    bias: bool = False
    kernel_init: Callable | None = None  # normal by its fan-in

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        letters, out = self.equation.split(",")[1].split("->")
        inner, outer = ([i for i, letter in enumerate(letters) if (letter in out) == there] for there in (False, True))
        x = x.astype(self.dtype)
        kernel = weight(self, "kernel", self.shape, self.axes, self.kernel_init or fan_in(inner, outer))
        kernel = kernel.astype(self.dtype)
        # Several summed axes in the order of the weight: einsum's own order costs a transposed copy of both.
        y = jax.lax.dot_general(x, kernel, ((range(x.ndim - len(inner), x.ndim), inner), ((), ())))
        rule = low_rank.rule_for("/".join(self.path), self.lora)
        if rule is not None:
            y = y + self._adapter(x, letters, rule)
        if self.bias:
            sizes, axes = [self.shape[i] for i in outer], [self.axes[i] for i in outer]
            y = y + weight(self, "bias", sizes, axes, nn.initializers.zeros).astype(self.dtype)
        return y

    def _adapter(self, x: Array, letters: str, rule: LoraRule) -> Array:
        by_letter = dict(zip(letters, zip(self.shape, self.axes, strict=True), strict=True)) | {"r": (rule.rank, None)}
        products = low_rank.products(self.equation, self.lora.openpi)

        def factor(name: str, its: str, init: Callable) -> Array:
            sizes, axes = zip(*(by_letter[letter] for letter in its), strict=True)
            return weight(self, name, sizes, axes, init).astype(self.dtype)

        summed = [i for i, letter in enumerate(products.a) if letter not in products.b]
        others = [i for i, letter in enumerate(products.a) if letter in products.b]
        random = nn.initializers.normal(0.01)  # openpi's, for both
        a = factor("lora_a", products.a, random if self.lora.openpi else fan_in(summed, others))
        b = factor("lora_b", products.b, random if self.lora.openpi else nn.initializers.zeros)
        y = jnp.einsum(products.up, jnp.einsum(products.down, x, a), b)
        return y * low_rank.scale(self.equation, rule, self.lora.openpi)


def equations(policy: Policy) -> dict[str, str]:
    """The equation of every linear map of the policy, by the path of its module; nothing is computed."""
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, Linear) and context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module.equation
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda key: policy.init(key), jax.random.key(0))  # a new function: not traced before
    return found


def dense(width: int, features: int, axes: Sequence[str | None], dtype: str, lora: LoraConfig, **more) -> Linear:
    """Linear layer with bias, [..., width] to [..., features]; `axes` are the logical axes of its kernel."""
    return Linear("...D,DF->...F", (width, features), axes, dtype, lora, bias=True, **more)


def convolution(
    features: int, size: int, dtype: str, *, stride: int = 1, bias: bool = True, name: str | None = None
) -> nn.Conv:
    """Over both axes of pictures; an odd size at stride 1 keeps their sides."""
    return nn.Conv(
        features,
        kernel_size=(size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        dtype=dtype,
        kernel_init=nn.with_logical_partitioning(fan_in((0, 1, 2), 3), (None, None, "embed", "mlp")),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
        name=name,
    )


def group_norm(groups: int, dtype: str, name: str | None = None) -> nn.GroupNorm:
    """GroupNorm (arXiv 1803.08494) over the positions of a row; Linen computes its statistics in float32."""
    return nn.GroupNorm(
        groups,
        epsilon=1e-5,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, (None,)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
        name=name,
    )


def dropout(x: Float[Array, "B ..."], keys: Key[Array, "B"] | None, rate: float) -> Float[Array, "B ..."]:
    """x with a share `rate` of its numbers zeroed and the rest made larger, each row by its own key; x without keys."""
    if keys is None or rate == 0:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


class Positions(nn.Module):
    """Learned embeddings of `count` places."""

    count: int
    width: int

    @nn.compact
    def __call__(self) -> Float[Array, "count width"]:
        return weight(self, "positions", (self.count, self.width), (None, "embed"), nn.initializers.normal(1.0))


def layer_norm(dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with SigLIP's epsilon; Linen computes its statistics in float32."""
    return nn.LayerNorm(
        epsilon=1e-6,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, (None,)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
        name=name,
    )


def unit_rms(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """x with root mean square 1, in float32: the mean of squares loses digits in bfloat16."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def unit_variance(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """x with mean 0 and variance 1, in float32."""
    x = x.astype(jnp.float32)
    return unit_rms(x - jnp.mean(x, axis=-1, keepdims=True))


class RMSNorm(nn.Module):
    """Root-mean-square norm; the scale is stored as its difference from 1 (Gemma, arXiv 2403.08295).

    A norm returns what the sublayer reads, and the gate of the sublayer's output: here 1.
    """

    lora: LoraConfig = low_rank.NONE

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], condition: None = None) -> tuple[Float[Array, "B T D"], int]:
        scale = weight(self, "scale", x.shape[-1:], (None,), nn.initializers.zeros)
        return (unit_rms(x) * (1 + scale)).astype(x.dtype), 1


class LayerNorm(nn.Module):
    """`layer_norm` that returns what `RMSNorm` does: what the sublayer reads, and the gate of its output, 1."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], condition: None = None) -> tuple[Float[Array, "B T D"], int]:
        return layer_norm(x.dtype, "norm")(x), 1


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale and shift, and the gate of the sublayer behind it, are linear in a condition.

    At first they are zero, so that the sublayer does nothing. The T tokens are M equal blocks with a condition each.

    Source: pi0.5, arXiv 2504.16054; adaLN-Zero of DiT, arXiv 2212.09748.
    """

    lora: LoraConfig = low_rank.NONE

    unit = staticmethod(unit_rms)

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B M E"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        T, D = x.shape[1:]
        zeros = nn.initializers.zeros
        sizes, axes = (condition.shape[-1], 3 * D), ("embed", None)
        modulation = dense(*sizes, axes, x.dtype, self.lora, kernel_init=zeros, name="modulation")(condition)
        scale, shift, gate = jnp.split(jnp.repeat(modulation, T // condition.shape[1], axis=1), 3, axis=-1)
        return (self.unit(x) * (1 + scale) + shift).astype(x.dtype), gate


class AdaptiveLayerNorm(AdaptiveRMSNorm):
    """The same of a LayerNorm: DiT's own (arXiv 2212.09748, section 3.2)."""

    unit = staticmethod(unit_variance)


def sincos(
    t: Float[Array, "..."], width: int, shortest: float = 4e-3, longest: float = 4.0
) -> Float[Array, "... width"]:
    """Sines and cosines of t at `width` / 2 periods, geometric from `shortest` to `longest` (flow times lie in [0, 1]).

    Source: pi0, arXiv 2410.24164, appendix B; the two periods are openpi's.
    """
    periods = shortest * (longest / shortest) ** jnp.linspace(0, 1, width // 2)
    angle = 2 * jnp.pi * t.astype(jnp.float32)[..., None] / periods
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
