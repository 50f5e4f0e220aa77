"""How many floating-point operations a policy's training step needs, from its config."""

from pizero_jax.config import Pi0Config, VisionConfig


def forward_flops(config: Pi0Config, samples_per_observation: int = 1) -> float:
    """FLOPs of one row's loss, forward, all cameras there; a multiply-add counts two, a backward pass twice as much.

    Matrix products only: linear maps, convolutions, and each query against each key, masked or not. Norms, softmax and
    the embedding's look-up are left out (about 1%). The last language layer counts its keys and values alone: the rest
    of it is not computed.

        vision    I n (4 D^2 + 2 D F + 2 n D) L + stem + head        n tokens of a picture
        language  S (2 D N H + 3 D F) (L - 1) + 2 S S N H (L - 1) + 2 S D K H L    S tokens: pictures and prompt
        expert    T (2 D N H + 2 D K H + 3 D F) L + 2 T (S + T) N H L      T = 1 + M C tokens: state and M chunks

    Multiply-adds; letters as elsewhere, each expert with its own D and F.
    """
    tokens = (config.image_size // config.vision.patch) ** 2
    pictures = len(config.cameras) * _vision(config.vision, config.image_size, config.language.width)
    prefix = len(config.cameras) * tokens + config.prompt_length
    suffix = 1 + samples_per_observation * config.chunk
    return 2.0 * (pictures + _language(config, prefix) + _expert(config, prefix, suffix))


def _vision(c: VisionConfig, side: int, language_width: int) -> int:
    n = (side // c.patch) ** 2
    layer = n * (4 * c.width**2 + 2 * c.width * c.mlp + 2 * n * c.width)
    stem = n * c.patch**2 * 3 * c.width if c.stem == "patch" else _conv_stem(c, side)
    return c.depth * layer + stem + n * c.width * language_width


def _conv_stem(c: VisionConfig, side: int) -> int:
    """Widths double at each halving, from 32 or more to the whole (`nn/siglip.py`)."""
    halvings = (c.patch // 4).bit_length() - 1
    widths = [min(max(c.width >> (halvings - i), 32), c.width) for i in range(halvings + 1)]
    first = (side // 4) ** 2 * 4 * 4 * 3 * widths[0]
    return first + sum((side // 4 >> i) ** 2 * 9 * widths[i - 1] * widths[i] for i in range(1, halvings + 1))


def _language(config: Pi0Config, S: int) -> int:
    a, D, F = config.attention, config.language.width, config.language.mlp
    heads = a.heads * a.head_dim
    whole = S * (2 * D * heads + 3 * D * F) + 2 * S * S * heads
    return (a.depth - 1) * whole + a.depth * S * 2 * D * a.kv_heads * a.head_dim


def _expert(config: Pi0Config, S: int, T: int) -> int:
    a, D, F = config.attention, config.expert.width, config.expert.mlp
    heads = a.heads * a.head_dim
    layer = T * (2 * D * heads + 2 * D * a.kv_heads * a.head_dim + 3 * D * F) + 2 * T * (S + T) * heads
    actions = (T - 1) * (2 * config.action_dim * D + 3 * D * D)  # in, mixed with the time, and out
    return a.depth * layer + config.state_dim * D + actions
