"""Makes `huggingface/`: small random models of transformers and lerobot, their weights, and what they compute.

    uv venv --python 3.12 /tmp/huggingface
    uv pip install --python /tmp/huggingface -r tests/weights/huggingface/requirements.txt
    /tmp/huggingface/bin/python tests/weights/make_huggingface.py make tests/weights/huggingface
    /tmp/huggingface/bin/python tests/weights/make_huggingface.py run pi0 <folder with weights> inputs.npz outputs.npz

`run` loads weights that we exported, fails if a key is missing or unexpected, and computes the outputs again. Sizes
differ on axes that must not be mixed up; everything is random, so that no fault hides behind a zero or a one.
"""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import torch

IMAGE, CAMERAS = 16, ("front", "hand")
VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
ATTENTION = dict(num_attention_heads=8, num_key_value_heads=2, head_dim=6, num_hidden_layers=2)  # lerobot: 8 heads
TEXT = dict(hidden_size=32, intermediate_size=48, vocab_size=64) | ATTENTION
EXPERT = dict(hidden_size=16, intermediate_size=32, vocab_size=64) | ATTENTION
PICTURE_TOKENS = (IMAGE // VISION["patch_size"]) ** 2 * len(CAMERAS)
STEPS, STATE, ACTION = 5, 3, 4


def paligemma():
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    vision = VISION | dict(model_type="siglip_vision_model", image_size=IMAGE, vision_use_head=False)
    width = TEXT["hidden_size"]
    config = PaliGemmaConfig(
        text_config=TEXT | dict(model_type="gemma"),
        vision_config=vision,
        projection_dim=width,
        hidden_size=width,
        image_token_index=TEXT["vocab_size"],
    )
    return PaliGemmaForConditionalGeneration(config)


def lerobot_class(kind: str):
    """lerobot's policy and its config; its networks, whose sizes are fixed, are made small."""
    if kind == "pi0":
        from lerobot.policies.pi0 import modeling_pi0 as modeling
        from lerobot.policies.pi0.configuration_pi0 import PI0Config as Config

        Policy = modeling.PI0Policy
    else:
        from lerobot.policies.pi05 import modeling_pi05 as modeling
        from lerobot.policies.pi05.configuration_pi05 import PI05Config as Config

        Policy = modeling.PI05Policy
    if modeling.get_gemma_config.__name__ != "small":
        make_small(modeling)
    return Policy, Config


def make_small(modeling) -> None:
    whole, expert = modeling.PaliGemmaForConditionalGenerationWithPiGemma, modeling.PiGemmaForCausalLM

    def change(config, changes):
        for key, value in changes.items():
            setattr(config, key, value)

    def small_whole(config):
        change(config.text_config, TEXT)
        change(config.vision_config, VISION | dict(projection_dim=TEXT["hidden_size"]))
        return whole(config)

    def small_expert(config):
        change(config, dict(vocab_size=EXPERT["vocab_size"]))
        return expert(config)

    def small(variant):
        c = TEXT if variant == "gemma_2b" else EXPERT
        heads = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        return modeling.GemmaConfig(c["hidden_size"], c["num_hidden_layers"], c["intermediate_size"], *heads)

    modeling.PaliGemmaForConditionalGenerationWithPiGemma = small_whole
    modeling.PiGemmaForCausalLM = small_expert
    modeling.get_gemma_config = small


def lerobot(kind: str):
    from lerobot.configs.types import FeatureType, PolicyFeature

    Policy, Config = lerobot_class(kind)
    pictures = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, IMAGE, IMAGE)) for name in CAMERAS}
    config = Config(
        device="cpu",
        chunk_size=STEPS,
        n_action_steps=STEPS,
        max_state_dim=STATE,
        max_action_dim=ACTION,
        image_resolution=(IMAGE, IMAGE),
        tokenizer_max_length=6,
        input_features=pictures | {"observation.state": PolicyFeature(FeatureType.STATE, (STATE,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
    )
    return Policy(config)


def random_inputs(rows: int = 3) -> dict[str, np.ndarray]:
    """Pictures in [-1, 1] by camera; the second row's prompt is shorter, the third lacks the last camera."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal((rows, *shape)).astype(np.float32)  # noqa: E731
    prompt_mask = np.ones((rows, 6), bool)
    prompt_mask[1, 3:] = False
    masks = {f"mask/{name}": np.ones(rows, bool) for name in CAMERAS}
    masks[f"mask/{CAMERAS[-1]}"][2] = False
    return masks | {
        **{f"image/{name}": rng.uniform(-1, 1, (rows, IMAGE, IMAGE, 3)).astype(np.float32) for name in CAMERAS},
        "prompt": rng.integers(0, TEXT["vocab_size"], (rows, 6)),
        "prompt_mask": prompt_mask,
        "state": normal(STATE),
        "actions": normal(STEPS, ACTION),
        "noise": normal(STEPS, ACTION),
        "time": rng.uniform(0.1, 0.9, rows).astype(np.float32),
    }


def tensors(inputs):
    return {key: torch.from_numpy(np.array(x)) for key, x in inputs.items()}


@torch.no_grad()
def compute(kind: str, model, inputs) -> dict[str, np.ndarray]:
    x = tensors(inputs)
    pictures = [x[f"image/{name}"].permute(0, 3, 1, 2).contiguous() for name in CAMERAS]
    masks = [x[f"mask/{name}"] for name in CAMERAS]
    if kind == "paligemma":
        rows = len(x["prompt"])
        ids = torch.cat([torch.full((rows, PICTURE_TOKENS), TEXT["vocab_size"]), x["prompt"]], dim=1)
        seen = torch.cat([m[:, None].expand(rows, PICTURE_TOKENS // len(CAMERAS)) for m in masks], dim=1)
        seen = torch.cat([seen, x["prompt_mask"]], dim=1)
        logits = model(
            input_ids=ids,
            pixel_values=torch.stack(pictures, dim=1).flatten(0, 1),
            attention_mask=seen.long(),
            position_ids=seen.long().cumsum(1),  # its own are 1, 2, 3, ..., whatever is masked
            token_type_ids=torch.zeros_like(ids),  # all prompt: each token sees each
        ).logits
        return {"logits": logits.numpy()}
    state = [x["state"]] if kind == "pi0" else []
    first = pictures, masks, x["prompt"], x["prompt_mask"], *state
    loss = model.model.forward(*first, x["actions"], x["noise"], x["time"])
    sample = model.model.sample_actions(*first, noise=x["noise"], num_steps=4)
    return {"loss": loss.numpy(), "sample": sample.numpy()}


def make(folder: Path) -> None:
    for kind in ("paligemma", "pi0", "pi05"):
        torch.manual_seed(0)
        model = (paligemma() if kind == "paligemma" else lerobot(kind)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / kind)
        inputs = random_inputs()
        np.savez_compressed(folder / kind / "computed.npz", **inputs, **compute(kind, model, inputs))


def run(kind: str, weights: Path, inputs: Path, outputs: Path) -> None:
    if kind == "paligemma":
        from transformers import PaliGemmaForConditionalGeneration

        model, report = PaliGemmaForConditionalGeneration.from_pretrained(weights, output_loading_info=True)
        faults = {key: found for key, found in report.items() if found}
    else:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            model = lerobot_class(kind)[0].from_pretrained(weights)
        faults = "" if "All keys loaded successfully!" in said.getvalue() else said.getvalue()
    if faults:
        raise SystemExit(f"{weights}: {faults}")
    np.savez(outputs, **compute(kind, model.eval(), np.load(inputs)))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        run(sys.argv[2], *map(Path, sys.argv[3:]))
