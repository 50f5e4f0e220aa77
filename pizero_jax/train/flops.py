"""How many floating-point operations a policy needs, from its config."""

from pizero_jax.config import (
    ActConfig,
    BackboneConfig,
    DiffusionPolicyConfig,
    DiffusionTransformerConfig,
    FlowConfig,
    InsulatedConfig,
    KeypointConfig,
    MeanFlowConfig,
    Pi0Config,
    Pi0FastConfig,
    Pi0SmallConfig,
    PolicyConfig,
    RegressionConfig,
    ResNetConfig,
    ShortcutConfig,
    TransformerConfig,
    TwoTimesConfig,
    VisionConfig,
)


def forward_flops(config: PolicyConfig, samples_per_observation: int = 1) -> float:
    """FLOPs of one row's loss, forward, all cameras there; a multiply-add counts two, a backward pass twice as much.

    Matrix products only: linear maps, convolutions, and each query against each key, masked or not. Norms, softmax,
    adapters and the embedding's look-up are left out (about 1%). Where nothing reads its output the last language
    layer counts its keys and values alone: the rest of it is not computed.

        vision    I n (4 D^2 + 2 D F + 2 n D) L + stem + head        n tokens of a picture
        language  S (2 D N H + 3 D F) (L - 1) + 2 S S N H (L - 1) + 2 S D K H L    S tokens: pictures and prompt
        tokens    T (2 D N H + 2 D K H + 3 D F) L + 2 T (S + T) N H L, T of them after the prompt, and (T + 1) D V
        expert    the same without D V; T = 1 + M C tokens: pi0's state and M chunks
                  MeanFlow's derivative by time takes as much again, attention twice; shortcuts take three passes

    Multiply-adds; letters as elsewhere, each expert with its own D and F. Policies without a backbone: `_unet`,
    `_denoiser`, `_act`, `_small`.
    """
    match config:
        case KeypointConfig():
            return 2.0 * (_keypoints(config) + samples_per_observation * _denoised(config))
        case ActConfig():
            return 2.0 * (_act(config) + _posterior(config))
        case Pi0SmallConfig():
            return 2.0 * (_small(config) + _small_expert(config, samples_per_observation))
    S = _prefix(config)
    writes = isinstance(config, InsulatedConfig | Pi0FastConfig)
    total = _pictures(config) + _language(config, S, whole=writes)
    if writes:
        total += _tokens(config, S, config.token_length - 1)
    if isinstance(config, FlowConfig):
        total += _expert(config, S, samples_per_observation) + _again(config, S, samples_per_observation)
    if isinstance(config, RegressionConfig):
        total += _regression(config, S)
    return 2.0 * total


def act_flops(config: PolicyConfig) -> float:
    """FLOPs of one chunk of actions: what is read once, then each solver step, or each of `token_length` tokens."""
    match config:
        case KeypointConfig():
            return 2.0 * (_keypoints(config) + config.calls * _denoised(config))
        case ActConfig():
            return 2.0 * _act(config)
        case Pi0SmallConfig():
            return 2.0 * (_small(config) + config.calls * _small_expert(config, 1))
    S = _prefix(config)
    match config:
        case FlowConfig():
            return 2.0 * (_pictures(config) + _language(config, S, whole=False) + config.calls * _expert(config, S, 1))
        case RegressionConfig():
            return forward_flops(config)
    return 2.0 * (_pictures(config) + _language(config, S, whole=True) + _tokens(config, S, config.token_length))


def tokens_per_row(config: PolicyConfig, samples_per_observation: int = 1) -> int:
    """Tokens of one row's loss: pictures and prompt, action tokens, and the expert's for every sample.

    Of policies without a backbone: the steps of all chunks, and what the encoders of ACT and pi0-small see.
    """
    C, chunks = config.chunk, samples_per_observation * config.chunk
    match config:
        case KeypointConfig():
            return chunks
        case ActConfig():
            return _seen(config) + C + (2 + C)
        case Pi0SmallConfig():
            return _prefix(config) + 1 + chunks
        case RegressionConfig():
            return _prefix(config) + 1 + C
    written = config.token_length if isinstance(config, InsulatedConfig | Pi0FastConfig) else 0
    suffix = isinstance(config, Pi0Config | TwoTimesConfig) + chunks
    return _prefix(config) + written + (suffix if isinstance(config, FlowConfig) else 0)


def _prefix(config: BackboneConfig | Pi0SmallConfig) -> int:
    return len(config.cameras) * (config.image_size // config.vision.patch) ** 2 + config.prompt_length


def _pictures(config: BackboneConfig) -> int:
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


def _language(config: BackboneConfig, S: int, whole: bool) -> int:
    a, D, F = config.attention, config.language.width, config.language.mlp
    heads = a.heads * a.head_dim
    layer = S * (2 * D * heads + 3 * D * F) + 2 * S * S * heads
    return (a.depth - (not whole)) * layer + a.depth * S * 2 * D * a.kv_heads * a.head_dim


def _tokens(config: BackboneConfig, S: int, T: int) -> int:
    D = config.language.width
    return _later(config, D, config.language.mlp, S, T) + (T + 1) * D * config.language.vocabulary


def _expert(config: FlowConfig, S: int, M: int) -> int:
    D, A, steps = config.expert.width, config.action_dim, M * config.chunk
    if isinstance(config, Pi0Config | TwoTimesConfig):
        spans = M * isinstance(config, TwoTimesConfig)
        lead, around = 1, config.state_dim * D + (steps * 3 + spans) * D * D  # the state, actions mixed with the time
    else:
        lead, around = 0, M * (2 + 3 * (2 * config.attention.depth + 1)) * D * D  # the time, and the norms
    return _later(config, D, config.expert.mlp, S, lead + steps) + around + steps * 2 * A * D


def _again(config: FlowConfig, S: int, M: int) -> int:
    """What the expert computes beside its pass, to learn mean velocities; no backward pass goes through it."""
    match config:
        case MeanFlowConfig():  # of a product of two, the derivative is two products; the state has none
            a, T = config.attention, 1 + M * config.chunk
            attention = a.depth * 2 * T * (S + T) * a.heads * a.head_dim
            return _expert(config, S, M) + attention - config.state_dim * config.expert.width
        case ShortcutConfig():
            return 2 * _expert(config, S, M)
    return 0


def _regression(config: RegressionConfig, S: int) -> int:
    D, C = config.expert.width, config.chunk
    return _later(config, D, config.expert.mlp, S, 1 + C) + config.state_dim * D + C * D * config.action_dim


def _later(config: BackboneConfig, D: int, F: int, S: int, T: int) -> int:
    """T tokens of width D behind S others."""
    a = config.attention
    heads = a.heads * a.head_dim
    return a.depth * (T * (2 * D * heads + 2 * D * a.kv_heads * a.head_dim + 3 * D * F) + 2 * T * (S + T) * heads)


def _resnet(c: ResNetConfig, side: int) -> tuple[int, int]:
    """Of one picture, and the side of what is left of it."""
    side, before = -(-side // 2), c.widths[0]
    total = side**2 * 7 * 7 * 3 * before
    side = -(-side // 2)
    for i, width in enumerate(c.widths):
        for j in range(c.depth):
            halved = i > 0 and j == 0
            side = -(-side // 2) if halved else side
            total += side**2 * (9 * before * width + 9 * width**2 + before * width * (halved or before != width))
            before = width
    return total, side


def _keypoints(config: KeypointConfig) -> int:
    """The features, their keypoints, their places, and the last linear map, of all cameras."""
    resnet, side = _resnet(config.resnet, config.image_size)
    K = config.keypoints
    return len(config.cameras) * (resnet + side**2 * K * (config.resnet.widths[-1] + 2) + (2 * K) ** 2)


def _denoised(config: KeypointConfig) -> int:
    """Of one chunk at one time."""
    return _unet(config) if isinstance(config, DiffusionPolicyConfig) else _denoiser(config)


def _denoiser(config: DiffusionTransformerConfig) -> int:
    c, C, D = config.transformer, config.chunk, config.transformer.width
    seen = len(config.cameras) * 2 * config.keypoints + config.state_dim
    return _layers(c, C) + _looks(c, C, 2, D) + 2 * 8 * D**2 + seen * D + C * 2 * D * config.action_dim


def _unet(config: DiffusionPolicyConfig) -> int:
    """Two blocks at each width down, in the middle and up, of two convolutions each."""
    c, widths, T = config.unet, config.unet.widths, config.chunk
    condition = c.time + len(config.cameras) * 2 * config.keypoints + config.state_dim

    def blocks(before: int, width: int, T: int) -> int:
        convolutions = T * (c.kernel * (before * width + 3 * width**2) + before * width * (before != width))
        return convolutions + 2 * condition * 2 * width

    total, before = 8 * c.time**2, config.action_dim
    for i, width in enumerate(widths):
        if i:
            T //= 2
            total += T * 3 * before**2
        total += blocks(before, width, T)
        before = width
    total += blocks(before, before, T)
    for width in reversed(widths[:-1]):
        total += blocks(2 * before, width, T) + T * 4 * width**2
        T, before = 2 * T, width
    return total + T * (c.kernel * before**2 + before * config.action_dim)


def _seen(config: ActConfig) -> int:
    """Tokens of ACT's encoder: z, the state, and the positions of all cameras."""
    return 2 + len(config.cameras) * _resnet(config.resnet, config.image_size)[1] ** 2


def _act(config: ActConfig) -> int:
    """ACT without its posterior: features, the encoder over S tokens, the decoder's C."""
    S, C, D, F = _seen(config), config.chunk, config.width, config.mlp
    features = len(config.cameras) * _resnet(config.resnet, config.image_size)[0]
    into = (S - 2) * config.resnet.widths[-1] * D + (config.latent + config.state_dim) * D
    own, seen = 4 * C * D**2 + 2 * C**2 * D, 2 * (C + S) * D**2 + 2 * C * S * D
    decoder = config.decoder_depth * (own + seen + 2 * C * D * F)
    return features + into + _encoder(config, S, config.encoder_depth) + decoder + C * D * config.action_dim


def _posterior(config: ActConfig) -> int:
    C, D = config.chunk, config.width
    into = (config.state_dim + C * config.action_dim) * D
    return into + _encoder(config, 2 + C, config.posterior_depth) + D * 2 * config.latent


def _encoder(config: ActConfig, S: int, depth: int) -> int:
    return _layers(TransformerConfig(config.width, depth, config.heads, config.mlp), S)


def _layers(c: TransformerConfig, T: int) -> int:
    """T tokens that see each other, and a feed-forward for each."""
    return c.depth * (4 * T * c.width**2 + 2 * T**2 * c.width + 2 * T * c.width * c.mlp)


def _looks(c: TransformerConfig, T: int, S: int, width: int) -> int:
    """Of the layers' T tokens into a memory of S tokens of `width`."""
    return c.depth * (2 * T * c.width**2 + 2 * S * width * c.width + 2 * T * S * c.width)


def _small(config: Pi0SmallConfig) -> int:
    """What is read once: pictures, words and state, and all of them together."""
    E, W, T = config.observation.width, config.language.width, config.prompt_length
    pictures = len(config.cameras) * _vision(config.vision, config.image_size, E)
    into = T * W * E + config.state_dim * E
    return pictures + _layers(config.language, T) + into + _layers(config.observation, _prefix(config) + 1)


def _small_expert(config: Pi0SmallConfig, M: int) -> int:
    """M chunks; the time of each, and what it says to the norms."""
    c, D, T = config.expert, config.expert.width, M * config.chunk
    looks = _looks(c, T, _prefix(config) + 1, config.observation.width)
    return _layers(c, T) + looks + M * (2 + 3 * (3 * c.depth + 1)) * D**2 + 2 * T * D * config.action_dim
