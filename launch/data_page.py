"""The page and the summary of `launch.inspect_data`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pizero_jax.config import TrainConfig
from pizero_jax.data.inspection import Curves, DataSet, Look, Whole
from pizero_jax.report import page, tables


def summary(found: Sequence[DataSet], file: Path) -> dict[str, Any]:
    """What the page says in numbers and words."""
    sets = [
        each.facts
        | {
            "most frequent instructions": dict(each.instructions[:10]),
            "left out episodes": list(each.left_out),
            "picture sizes": {camera: list(shape) for camera, shape in each.shapes.items()},
            "statistics": each.statistics,
            "warnings": [suspicion._asdict() for suspicion in each.suspicions],
        }
        for each in found
    ]
    return {"page": str(file), "data sets": sets}


def table(found: Sequence[DataSet], file: Path) -> str:
    columns = ["data set", "episodes", "frames", "hours", "share of rows", "epochs", "held-out frames", "pools",
               "episodes in a batch"]  # fmt: skip
    warnings = [
        f"warning: {each.name}{each.name and ': '}{suspicion.seen}; {suspicion.change}"
        for each in found
        for suspicion in each.suspicions
    ]
    return "\n".join(
        [
            tables.markdown([each.facts for each in found], columns),
            "",
            *(warnings or ["nothing suspicious"]),
            "",
            f"pictures, plots and statistics: {file}",
        ]
    )


def page_of(config: TrainConfig, found: Sequence[DataSet]) -> str:
    episodes, frames = (sum(each.facts[key] for each in found) for key in ("episodes", "frames"))
    pieces = [
        page.heading(1, "What the policy learns from"),
        page.paragraph(
            f"{page.text(episodes)} episodes with {page.text(frames)} frames, for {page.text(config.steps)} steps of "
            f"{page.text(config.batch_size)} rows. Windows and episodes are drawn with seed {config.seed}."
        ),
    ]
    if len(found) > 1:
        columns = ("episodes", "frames", "hours", "weight", "share of rows", "epochs", "held-out frames")
        rows = [
            {"data set": each.name}
            | {key: each.facts[key] for key in columns}
            | {"warnings": len(each.suspicions) + len(each.left_out)}
            for each in found
        ]
        pieces.append(page.table(rows, {each.name: f"set-{number}" for number, each in enumerate(found)}))
    for number, each in enumerate(found):
        pieces += [page.heading(2, each.facts["data set"], f"set-{number}"), *_data_set(config, each)]
    return page.document("What the policy learns from", pieces)


def _data_set(config: TrainConfig, found: DataSet) -> Iterator[str]:
    yield page.warnings(found.suspicions)
    yield page.tiles(_tiles(found))
    if found.left_out:
        yield page.heading(3, "Damaged episodes that are left out")
        yield page.table([{"reason": line} for line in found.left_out[:100]])
    if found.looks:
        yield page.heading(3, "Windows as the policy sees them")
        yield page.legend()
        yield from (page.card(_look(config, look)) for look in found.looks)
    yield page.heading(3, "Whole episodes")
    yield from (page.card(_whole(whole)) for whole in found.episodes)
    yield page.heading(3, "Statistics")
    yield page.paragraph("What normalisation is made from; of actions that are relative, the distances.")
    yield page.table([row | {"flags": ", ".join(row["flags"])} for row in found.statistics])
    yield page.heading(3, "Lengths of episodes")
    yield page.histogram(found.lengths, "frames")
    yield page.heading(3, "Instructions")
    yield page.paragraph(f"{page.text(found.facts['instructions'])} different ones; in how many episodes each is:")
    yield page.frequencies(found.instructions[:10], len(found.lengths))


def _tiles(found: DataSet) -> dict[str, Any]:
    facts = {key: value for key, value in found.facts.items() if key != "data set"}
    facts["share of rows"] = f"{facts['share of rows']:.1%}"
    facts |= {key: facts[key] or "unknown" for key in ("hz", "hours")}
    sizes = {f"{camera} as stored": f"{width} × {height}" for camera, (height, width) in found.shapes.items()}
    return facts | sizes


def _look(config: TrainConfig, look: Look) -> Iterator[str]:
    counts = {"tokens": (look.tokens, config.policy.prompt_length)}
    if look.action_tokens is not None:
        counts["action tokens"] = (look.action_tokens, config.policy.token_length)
    yield page.heading(3, f"Episode {look.episode}, frame {look.frame}")
    yield page.prompt(look.instruction, look.prompt, counts)
    augmented = len(next(iter(look.pictures.values()))) - 1
    yield page.pictures(look.pictures, ["as it is", *["augmented"] * augmented])
    yield from _curves(look.state, look.actions)


def _whole(whole: Whole) -> Iterator[str]:
    yield page.heading(3, f"Episode {whole.episode}")
    yield page.paragraph(f"“{whole.instruction}”, {page.text(len(whole.state.real))} frames")
    yield page.pictures(whole.pictures, [f"frame {frame}" for frame in whole.frames])
    yield from _curves(whole.state, whole.actions)


def _curves(state: Curves, actions: Curves) -> Iterator[str]:
    for title, curves in (("State", state), ("Actions", actions)):
        yield page.heading(4, title)
        yield page.curves(*curves)
