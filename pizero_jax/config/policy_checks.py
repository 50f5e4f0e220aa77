"""What is allowed of policies and their losses."""

from pizero_jax.config.building import require, require_pattern
from pizero_jax.config.policy import (
    GROUP,
    ActConfig,
    BackboneConfig,
    DiffusionPolicyConfig,
    DiffusionTransformerConfig,
    FlowConfig,
    InsulatedConfig,
    KeypointConfig,
    LossConfig,
    Pi0FastConfig,
    Pi0SmallConfig,
    PolicyConfig,
    RegressionConfig,
    ShortcutConfig,
    SolverConfig,
    TransformerConfig,
    TwoTimesConfig,
    WordlessConfig,
)


def check_policy(p: PolicyConfig, loss: LossConfig) -> None:
    """What is allowed of a policy with its loss; InputError names the path, the value and what is allowed."""
    require(p.chunk >= 1, "config.policy.chunk", p.chunk, "at least 1")
    require(len(p.cameras) == len(set(p.cameras)), "config.policy.cameras", p.cameras, "names without repeats")
    match p:
        case BackboneConfig():
            _check_backbone(p)
        case KeypointConfig():
            _check_keypoints(p)
        case ActConfig():
            _check_act(p)
        case Pi0SmallConfig():
            _check_pi0_small(p)
    if isinstance(p, TwoTimesConfig):
        _check_two_times(p, loss)
    if isinstance(p, SolverConfig):
        require(p.num_steps >= 1, "config.policy.num_steps", p.num_steps, "at least 1")
    if isinstance(p, InsulatedConfig | Pi0FastConfig):
        require(p.token_length >= 1, "config.policy.token_length", p.token_length, "at least 1")
    if isinstance(p, RegressionConfig | ActConfig):
        padding = loss.openpi_padding
        require(not padding, "config.loss.openpi_padding", padding, f"False for {p.name!r}, which is not openpi's")
    for i, rule in enumerate(p.lora.rules):
        require(rule.rank >= 1, f"config.policy.lora.rules[{i}].rank", rule.rank, "at least 1")
        require_pattern(f"config.policy.lora.rules[{i}].modules", rule.modules)
    samples, delay = loss.samples_per_observation, loss.max_delay
    require(samples >= 1, "config.loss.samples_per_observation", samples, "at least 1")
    require(0 <= delay < p.chunk, "config.loss.max_delay", delay, f"0 to less than config.policy.chunk = {p.chunk}")
    by_step = isinstance(p, FlowConfig | Pi0SmallConfig) or delay == 0
    require(by_step, "config.loss.max_delay", delay, f"0 for {p.name!r}, whose steps have no times of their own")


def _check_vision(p: BackboneConfig | Pi0SmallConfig) -> None:
    v = p.vision
    require(v.width % v.heads == 0, "config.policy.vision.heads", v.heads, f"a divisor of the width, {v.width}")
    size = f"a divisor of config.policy.image_size = {p.image_size}"
    require(p.image_size % v.patch == 0, "config.policy.vision.patch", v.patch, size)
    power = v.stem == "patch" or (v.patch >= 4 and v.patch & (v.patch - 1) == 0)
    require(power, "config.policy.vision.patch", v.patch, "4, 8, 16, ... for the stem 'conv'")


def _check_backbone(p: BackboneConfig) -> None:
    _check_vision(p)
    a = p.attention
    require(a.heads % a.kv_heads == 0, "config.policy.attention.heads", a.heads, f"a multiple of {a.kv_heads}")
    require(a.head_dim % 2 == 0, "config.policy.attention.head_dim", a.head_dim, "even, for rotary positions")
    if isinstance(p, FlowConfig):
        width = p.expert.width
        require(width % 2 == 0, "config.policy.expert.width", width, "even, for sines and cosines")


def _check_two_times(p: TwoTimesConfig, loss: LossConfig) -> None:
    for key, only in (("path", "straight"), ("prediction", "u"), ("max_delay", 0)):
        value = getattr(loss, key)
        require(value == only, f"config.loss.{key}", value, f"{only!r} for {p.name!r}, which learns mean velocities")
    require(p.solver == "euler", "config.policy.solver", p.solver, f"'euler' for {p.name!r}, whose steps are whole")
    require(0 <= p.flow_share <= 1, "config.policy.flow_share", p.flow_share, "in [0, 1]")
    period = p.shortest_period
    require(0 < period <= 4, "config.policy.shortest_period", period, "positive, and at most the longest, 4")
    require(p.error_power >= 0, "config.policy.error_power", p.error_power, "0 or more")
    if isinstance(p, ShortcutConfig):
        require(p.halvings >= 1, "config.policy.halvings", p.halvings, "at least 1")


def _check_resnet(p: WordlessConfig) -> None:
    widths, depth = p.resnet.widths, p.resnet.depth
    fits = widths and all(width > 0 and width % GROUP == 0 for width in widths)
    require(fits, "config.policy.resnet.widths", widths, f"one or more multiples of {GROUP}, the channels of a norm")
    require(depth >= 1, "config.policy.resnet.depth", depth, "at least 1")
    smallest = 2 ** (len(widths) + 1)
    allowed = f"at least {smallest}, of which {len(widths)} config.policy.resnet.widths leave one position"
    require(p.image_size >= smallest, "config.policy.image_size", p.image_size, allowed)


def _check_transformer(c: TransformerConfig, path: str) -> None:
    for key in ("width", "depth", "heads", "mlp"):
        require(getattr(c, key) >= 1, f"{path}.{key}", getattr(c, key), "at least 1")
    require(c.width % c.heads == 0, f"{path}.heads", c.heads, f"a divisor of the width, {c.width}")


def _check_steps(c: TransformerConfig, path: str) -> None:
    _check_transformer(c, path)
    require(c.width % 2 == 0, f"{path}.width", c.width, "even, for sines and cosines of the flow time")


def _check_pi0_small(p: Pi0SmallConfig) -> None:
    _check_vision(p)
    _check_transformer(p.language, "config.policy.language")
    _check_transformer(p.observation, "config.policy.observation")
    _check_steps(p.expert, "config.policy.expert")
    require(p.prompt_length >= 1, "config.policy.prompt_length", p.prompt_length, "at least 1")


def _check_keypoints(p: KeypointConfig) -> None:
    _check_resnet(p)
    require(p.keypoints >= 1, "config.policy.keypoints", p.keypoints, "at least 1")
    require(p.clip >= 0, "config.policy.clip", p.clip, "0, for no limit, or more")
    match p:
        case DiffusionPolicyConfig():
            _check_unet(p)
        case DiffusionTransformerConfig():
            _check_steps(p.transformer, "config.policy.transformer")
            require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")


def _check_unet(p: DiffusionPolicyConfig) -> None:
    widths, groups = p.unet.widths, p.unet.groups
    fits = groups >= 1 and widths and all(width > 0 and width % groups == 0 for width in widths)
    allowed = f"one or more multiples of config.policy.unet.groups = {groups}"
    require(fits, "config.policy.unet.widths", widths, allowed)
    shortest = 2 ** (len(widths) - 1)
    allowed = f"a multiple of {shortest}: {len(widths)} config.policy.unet.widths halve it {len(widths) - 1} times"
    require(p.chunk % shortest == 0, "config.policy.chunk", p.chunk, allowed)
    kernel, time = p.unet.kernel, p.unet.time
    require(kernel >= 1 and kernel % 2 == 1, "config.policy.unet.kernel", kernel, "odd, to have a middle")
    require(time >= 4 and time % 2 == 0, "config.policy.unet.time", time, "even and 4 or more, for sines and cosines")


def _check_act(p: ActConfig) -> None:
    _check_resnet(p)
    fits = p.heads >= 1 and p.width % p.heads == 0
    require(fits, "config.policy.heads", p.heads, f"a divisor of config.policy.width = {p.width}")
    require(p.width % 4 == 0, "config.policy.width", p.width, "a multiple of 4, for sines and cosines of two axes")
    for key in ("mlp", "encoder_depth", "decoder_depth", "posterior_depth", "latent"):
        require(getattr(p, key) >= 1, f"config.policy.{key}", getattr(p, key), "at least 1")
    require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")
    require(p.kl_weight >= 0, "config.policy.kl_weight", p.kl_weight, "0 or more")
