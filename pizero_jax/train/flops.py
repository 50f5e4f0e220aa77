"""How many floating-point operations a policy needs, from its config."""

from pizero_jax.config import FlowConfig, InsulatedConfig, Pi0Config, Pi0FastConfig, PolicyConfig, VisionConfig


def forward_flops(config: PolicyConfig, samples_per_observation: int = 1) -> float:
    """FLOPs of one row's loss, forward, all cameras there; a multiply-add counts two, a backward pass twice as much.

    Matrix products only: linear maps, convolutions, and each query against each key, masked or not. Norms, softmax,
    adapters and the embedding's look-up are left out (about 1%). Where nothing reads its output the last language
    layer counts its keys and values alone: the rest of it is not computed.

        vision    I n (4 D^2 + 2 D F + 2 n D) L + stem + head        n tokens of a picture
        language  S (2 D N H + 3 D F) (L - 1) + 2 S S N H (L - 1) + 2 S D K H L    S tokens: pictures and prompt
        tokens    T (2 D N H + 2 D K H + 3 D F) L + 2 T (S + T) N H L, T of them after the prompt, and (T + 1) D V
        expert    the same without D V; T = 1 + M C tokens: pi0's state and M chunks

    Multiply-adds; letters as elsewhere, each expert with its own D and F.
    """
    S = _prefix(config)
    writes = isinstance(config, InsulatedConfig | Pi0FastConfig)
    total = _pictures(config) + _language(config, S, whole=writes)
    if writes:
        total += _tokens(config, S, config.token_length - 1)
    if isinstance(config, FlowConfig):
        total += _expert(config, S, samples_per_observation)
    return 2.0 * total


def act_flops(config: PolicyConfig) -> float:
    """FLOPs of one chunk of actions: the prefix once, then each solver step, or each of `token_length` tokens."""
    S = _prefix(config)
    if isinstance(config, FlowConfig):
        return 2.0 * (_pictures(config) + _language(config, S, whole=False) + config.calls * _expert(config, S, 1))
    return 2.0 * (_pictures(config) + _language(config, S, whole=True) + _tokens(config, S, config.token_length))


def tokens_per_row(config: PolicyConfig, samples_per_observation: int = 1) -> int:
    """Tokens of one row's loss: pictures and prompt, action tokens, and the expert's for every sample."""
    written = config.token_length if isinstance(config, InsulatedConfig | Pi0FastConfig) else 0
    suffix = isinstance(config, Pi0Config) + samples_per_observation * config.chunk
    return _prefix(config) + written + (suffix if isinstance(config, FlowConfig) else 0)


def _prefix(config: PolicyConfig) -> int:
    return len(config.cameras) * (config.image_size // config.vision.patch) ** 2 + config.prompt_length


def _pictures(config: PolicyConfig) -> int:
    return len(config.cameras) * _vision(config.vision, config.image_size, config.language.width)


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


def _language(config: PolicyConfig, S: int, whole: bool) -> int:
    a, D, F = config.attention, config.language.width, config.language.mlp
    heads = a.heads * a.head_dim
    layer = S * (2 * D * heads + 3 * D * F) + 2 * S * S * heads
    return (a.depth - (not whole)) * layer + a.depth * S * 2 * D * a.kv_heads * a.head_dim


def _tokens(config: PolicyConfig, S: int, T: int) -> int:
    D = config.language.width
    return _later(config, D, config.language.mlp, S, T) + (T + 1) * D * config.language.vocabulary


def _expert(config: FlowConfig, S: int, M: int) -> int:
    D, A, steps = config.expert.width, config.action_dim, M * config.chunk
    if isinstance(config, Pi0Config):
        lead, around = 1, config.state_dim * D + steps * 3 * D * D  # the state, and actions mixed with the time
    else:
        lead, around = 0, M * (2 + 3 * (2 * config.attention.depth + 1)) * D * D  # the time, and the norms
    return _later(config, D, config.expert.mlp, S, lead + steps) + around + steps * 2 * A * D


def _later(config: PolicyConfig, D: int, F: int, S: int, T: int) -> int:
    """T tokens of width D behind S others."""
    a = config.attention
    heads = a.heads * a.head_dim
    return a.depth * (T * (2 * D * heads + 2 * D * a.kv_heads * a.head_dim + 3 * D * F) + 2 * T * (S + T) * heads)
