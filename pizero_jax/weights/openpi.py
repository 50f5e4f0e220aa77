"""openpi's checkpoints, in and out.

Its folders are `<step>/{params,train_state,assets/<asset>/norm_stats.json}` (Orbax), each key path ending in `value`
where openpi itself saved, and not in some released ones.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from pizero_jax import policies
from pizero_jax.config import (
    AttentionConfig,
    ExpertConfig,
    LanguageConfig,
    LoraConfig,
    LoraRule,
    LossConfig,
    Pi0Config,
    Pi0FastConfig,
    Pi05Config,
    PolicyConfig,
    VisionConfig,
)
from pizero_jax.data import normalize
from pizero_jax.data.normalize import Statistics
from pizero_jax.errors import InputError
from pizero_jax.types import Batch, Observation, Params, Policy
from pizero_jax.weights import source as sources
from pizero_jax.weights.download import fetch
from pizero_jax.weights.openpi_layout import LAYERS, VISION, leaf, to_openpi
from pizero_jax.weights.source import Source

LOSS = LossConfig(samples_per_observation=1, openpi_padding=True, flow_weight=1.0)


class Weights(NamedTuple):
    """What a source holds: the policy's config, the loss it was trained with, and its parameters."""

    config: PolicyConfig
    loss: LossConfig
    params: Params


class Training(NamedTuple):
    """The state of a run: finished steps, all raw parameters (None where none are averaged), the optimiser's state."""

    step: jax.Array
    params: Params | None
    opt_state: optax.OptState


def load(source: str | Mapping[str, np.ndarray], **options: Any) -> tuple[Policy, Params]:
    """Policy and parameters of openpi's weights; see `read`."""
    weights = read(source, **options)
    return policies.make(weights.config, weights.loss), weights.params


def read(
    source: str | epath.PathLike | Mapping[str, np.ndarray],
    *,
    raw: bool = False,
    alpha: float | None = None,
    mesh: Mesh | None = None,
    param_dtype: str | None = None,
    **changes: Any,
) -> Weights:
    """openpi's weights, their config inferred from the shapes of the arrays.

    openpi's behaviours that the weights were trained with are switched on and logged: its average over padding, its
    LoRA, its positions in pi0-FAST.

    Args:
      source: a checkpoint's folder (a step, or its `params`; `gs://` is fetched), or a mapping of flattened path to
        array; keys may begin with "param/" or "params/" (then others are left alone) and end in "/value".
      raw: take the raw parameters, of the step's `train_state`, not those that act (averaged, where openpi averages).
      alpha: of the adapters, which the arrays do not tell; their rank by default, as in openpi's published forms.
      mesh: the parameters arrive laid out over it as in training.
      param_dtype: of the parameters; that of the arrays by default.
      **changes: fields of the policy's config that the arrays do not tell: `cameras`, `chunk`, `dtype`, ...

    Raises:
      InputError: a report of what is missing, of another shape, or unused beside that or in the main (a few extra
        arrays are left out with a warning, as in openpi without one); or the folder cannot be read.
    """
    arrays = of_folder(source, raw) if isinstance(source, str | epath.PathLike) else of_arrays(source)
    config = dataclasses.replace(infer(arrays, alpha), **changes)
    policy = policies.make(config, LOSS)
    abstract = jax.eval_shape(policy.init, jax.random.key(0))
    expected = jax.eval_shape(to_openpi, abstract)
    arrays = sources.without_extras(arrays, expected)
    sources.check(arrays, expected, f"openpi's {config.name} of these sizes")
    options = [f"loss.openpi_padding, activations in {config.dtype}"]
    options += ["policy.lora.openpi"] if config.lora.rules else []
    options += ["policy.openpi_positions"] if isinstance(config, Pi0FastConfig) else []
    logging.warning("%s holds openpi's %s; as openpi trained it: %s", arrays.name, config.name, ", ".join(options))
    table = {path: leaf(path) for path in sources.flat(abstract)}
    return Weights(config, LOSS, sources.fill(policy, table, arrays, mesh, param_dtype))


def batch(inputs: Mapping[str, np.ndarray]) -> Batch:
    """openpi's inputs as ours, everything in them real.

    openpi keeps the prompt of pi0-FAST and the action tokens behind it in one row; here they are two.

    Args:
      inputs: flat: "image/<camera>", "state", "tokenized_prompt", "tokenized_prompt_mask", and perhaps
        "image_mask/<camera>" (without it all rows have that picture), "actions" [B, C, A] and, of pi0-FAST,
        "token_loss_mask".
    """
    cameras = [key.removeprefix("image/") for key in inputs if key.startswith("image/")]
    prompt, mask = np.asarray(inputs["tokenized_prompt"]), np.asarray(inputs["tokenized_prompt_mask"])
    written = np.asarray(inputs.get("token_loss_mask", np.zeros_like(mask))) & mask
    observation = Observation(
        images={name: inputs[f"image/{name}"] for name in cameras},
        image_masks={name: inputs.get(f"image_mask/{name}", np.ones(len(mask), bool)) for name in cameras},
        state=inputs["state"],
        prompt=prompt,
        prompt_mask=mask & ~written,
    )
    actions = np.asarray(inputs.get("actions", np.zeros((len(mask), 0, 0), np.float32)))
    B, C, A = actions.shape
    real = np.ones((B, C), bool), np.ones((B, A), bool)
    if not written.any():
        return Batch(observation, actions, *real)
    length = written.sum(axis=1).max()
    order = np.argsort(~written, axis=1, kind="stable")[:, :length]  # action tokens first, in their order
    return Batch(observation, actions, *real, *(np.take_along_axis(x, order, axis=1) for x in (prompt, written)))


def export(
    folder: str | epath.PathLike,
    params: Params,
    *,
    statistics: Mapping[str, Statistics] | None = None,
    asset_id: str = "pizero_jax",
    training: Training | None = None,
) -> None:
    """Writes a checkpoint of one step that openpi loads: for acting, as weights to start from, and to go on training.

    Args:
      folder: of the step, such as `<run>/30000`; it must not exist.
      params: those that act; openpi keeps averaged ones here.
      statistics: written as `assets/<asset_id>/norm_stats.json`.
      training: for openpi to resume from; without it, openpi can act and fine-tune.

    Raises:
      InputError: the folder exists.
    """
    import orbax.checkpoint as ocp

    folder = epath.Path(folder).absolute()
    if folder.exists():
        raise InputError(f"{folder} exists; name another folder")
    items = {"params": ocp.args.PyTreeSave({"params": valued(to_openpi(params))})}
    if training is not None:
        items["train_state"] = ocp.args.PyTreeSave(train_state(training))
    partial = folder.parent / f"{folder.name}.partial"
    partial.rmtree(missing_ok=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(partial, ocp.args.Composite(**items))
    if statistics is not None:
        assets = partial / "assets" / asset_id
        assets.mkdir(parents=True)
        normalize.save(assets / "norm_stats.json", statistics)
    partial.rename(folder)


def train_state(training: Training) -> dict[str, Any]:
    """openpi's train state: clipping has none, then AdamW's moments and the count of the schedule.

    It holds parameters only beside averaged ones; otherwise those that act are the raw ones.
    """
    (adam,) = (state for _, state in optax.tree_utils.tree_get_all_with_path(training.opt_state, "ScaleByAdamState"))
    moments = optax.ScaleByAdamState(adam.count, valued(to_openpi(adam.mu)), valued(to_openpi(adam.nu)))
    return {
        "step": training.step,
        "params": {} if training.params is None else valued(to_openpi(training.params)),
        "model_def": None,
        "opt_state": (optax.EmptyState(), (moments, optax.EmptyState(), optax.ScaleByScheduleState(adam.count))),
        "ema_params": None,
    }


def valued(leaves: Mapping[str, jax.Array]) -> Params:
    """The tree that openpi saves: each key path ends in `value`."""
    return unflatten_dict({f"{path}/value": jax.numpy.asarray(x) for path, x in leaves.items()}, sep="/")


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Source:
    """A mapping with openpi's bare paths."""
    for prefix in ("param/", "params/"):
        inside = [key for key in arrays if key.startswith(prefix)]
        if inside:
            return sources.of_mapping({bare(key.removeprefix(prefix)): arrays[key] for key in inside}, "the mapping")
    return sources.of_mapping({bare(key): arrays[key] for key in arrays}, "the mapping")


def bare(path: str) -> str:
    return path.removesuffix("/value")


def of_folder(folder: str | epath.PathLike, raw: bool = False) -> Source:
    """openpi's checkpoint of one step, or the `params` inside; fetched first if it is not here.

    Raises:
      InputError: it is none, cannot be read, or has no raw parameters though they are asked for.
    """
    import orbax.checkpoint as ocp

    folder = fetch(str(folder)).absolute()  # Orbax finds nothing by relative paths
    checkpointer = ocp.PyTreeCheckpointer()
    item = first_item(folder / "params", folder)
    if item is None and not raw:
        raise InputError(f"{folder} is not a checkpoint of openpi: there is no params/_METADATA in it")
    if raw:
        state = first_item(folder / "train_state", folder.parent / "train_state")
        if state is None:
            raise InputError(f"{folder} has no train_state in or beside it, so no raw parameters: take those that act")
        # Where none are averaged, it holds none, and those that act are raw.
        item = state if parameters(checkpointer, state) else state.parent / "params"
    leaves = parameters(checkpointer, item)
    paths = {bare("/".join(key[1:])): key for key in leaves}

    def read(name: str) -> np.ndarray:
        one = unflatten_dict({paths[name]: 0})
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), one)
        try:
            tree = checkpointer.restore(item, ocp.args.PyTreeRestore(one, restore_args=args, partial_restore=True))
        except Exception as error:  # tensorstore has no class of its own for damaged files
            raise InputError(f"{item}: {name} cannot be read: {str(error).splitlines()[0]}") from error
        return jax.tree.leaves(tree)[0]

    shapes = {name: jax.ShapeDtypeStruct(leaves[key].shape, leaves[key].dtype) for name, key in paths.items()}
    return Source(str(item), shapes, read)


def first_item(*places: epath.PathLike) -> epath.PathLike | None:
    """The first of the places where an item of a checkpoint lies."""
    return next((place for place in places if (place / "_METADATA").exists()), None)


def parameters(checkpointer: Any, item: epath.PathLike) -> dict[tuple[str, ...], Any]:
    """What the parameters in an item are like, by their key paths; InputError if it cannot be read."""
    try:
        leaves = flatten_dict(checkpointer.metadata(item).item_metadata.tree)
    except (AttributeError, ValueError, KeyError, OSError) as error:  # metadata of another kind of item are None
        raise InputError(f"{item} cannot be read: {error}") from error
    return {key: x for key, x in leaves.items() if key[0] == "params"}


def infer(source: Source, alpha: float | None = None) -> PolicyConfig:
    """The config that arrays of these shapes belong to.

    Sizes come from vectors where possible, so that one transposed matrix does not lead astray.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in source.shapes:
            raise InputError(f"{source.name} does not hold openpi's weights; nothing was loaded:\n  missing: {name}")
        return source.shapes[name].shape

    def size(name: str) -> int:
        return math.prod(shape(name))

    (vision_width,) = shape("PaliGemma/img/Transformer/encoder_norm/scale")
    vision_depth = shape(f"{VISION}/LayerNorm_0/scale")[0]
    patch = math.isqrt(size("PaliGemma/img/embedding/kernel") // (3 * vision_width))
    depth, width = shape(f"{LAYERS}/pre_attention_norm/scale")
    _, heads, head_dim, _ = shape(f"{LAYERS}/attn/attn_vec_einsum/w")
    dtypes = {str(x.dtype) for x in source.shapes.values()}
    common = dict(
        dtype="bfloat16" if dtypes == {"bfloat16"} else "float32",
        remat="full",
        unroll=1,
        cameras=("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"),
        image_size=patch * math.isqrt(size("PaliGemma/img/pos_embedding") // vision_width),
        prompt_length=48,
        state_dim=32,
        action_dim=32,
        chunk=50,
        vision=VisionConfig(
            stem="patch",
            patch=patch,
            width=vision_width,
            depth=vision_depth,
            mlp=shape(f"{VISION}/MlpBlock_0/Dense_0/bias")[1],
            heads=shape(f"{VISION}/MultiHeadDotProductAttention_0/query/bias")[1],
        ),
        attention=AttentionConfig(
            depth=depth,
            heads=heads,
            kv_heads=size(f"{LAYERS}/attn/kv_einsum/w") // (depth * 2 * width * head_dim),
            head_dim=head_dim,
        ),
        language=LanguageConfig(
            width=width,
            mlp=size(f"{LAYERS}/mlp/linear") // (depth * width),
            vocabulary=size("PaliGemma/llm/embedder/input_embedding") // width,
        ),
        lora=infer_lora(source, alpha),
    )
    if not any(name.startswith("action_") for name in source.shapes):
        fast = dict(prompt_length=250, cameras=("base_0_rgb", "base_1_rgb", "wrist_0_rgb"))
        return Pi0FastConfig(**common | fast, name="pi0_fast", token_length=250, openpi_positions=True)
    (expert_width,) = shape("action_in_proj/bias")
    expert_mlp = size(f"{LAYERS}/mlp_1/linear") // (depth * expert_width)
    common |= dict(
        expert=ExpertConfig(expert_width, expert_mlp), action_dim=shape("action_out_proj/bias")[0],
        solver="euler", num_steps=10,
    )  # fmt: skip
    if any(name.startswith("time_mlp") for name in source.shapes):
        return Pi05Config(**common | dict(prompt_length=200, state_dim=common["action_dim"]), name="pi05")
    return Pi0Config(**common | dict(state_dim=size("state_proj/kernel") // expert_width), name="pi0")


def infer_lora(source: Source, alpha: float | None) -> LoraConfig:
    """A rule for each of attention and feed-forward of each expert that has adapters."""
    rules = []
    for expert, s in (("backbone/language", ""), ("expert", "_1")):
        for part, name in (("attention", f"attn/q_einsum{s}/lora_a"), ("feed_forward", f"mlp{s}/linear_lora_a")):
            if f"{LAYERS}/{name}" in source.shapes:
                rank = source.shapes[f"{LAYERS}/{name}"].shape[-1]
                rules.append(LoraRule(f"{expert}/layers/{part}/.*", rank, float(alpha or rank)))
    return LoraConfig(tuple(rules), openpi=bool(rules))
