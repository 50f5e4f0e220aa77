"""Shows what a config trains on.

    python -m launch.inspect_data --config=configs/pi0_metaworld.py [--output=runs/inspect_data] [--windows=4] [--json]
    python -m launch.inspect_data --config=configs/pi0_metaworld.py --ids=0:10

Writes `index.html`, a page in one file with the mixture, windows as the policy sees them, statistics and warnings;
prints a summary of it.

--ids=START:STOP prints the samples of each of these global steps instead, one line a step: `episode:frame`, in a
mixture `data set/episode:frame`, in the order of the rows of the batch, the same for any number of processes.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import inspection, loader
from pizero_jax.data.inspection import Curves, DataSet, Look, Whole
from pizero_jax.errors import InputError
from pizero_jax.report import page, tables

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
IDS = flags.DEFINE_string("ids", None, "START:STOP: global steps whose samples are printed.")
OUTPUT = flags.DEFINE_string("output", "runs/inspect_data", "Folder of the page.")
WINDOWS = flags.DEFINE_integer("windows", 4, "How many windows of each data set the page shows.", lower_bound=0)
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    if IDS.value is not None:
        for line in ids(config, steps(IDS.value)):
            print(line)
        return
    found = inspection.inspect(config, loader.open_data(config), windows=WINDOWS.value)
    file = Path(OUTPUT.value) / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page_of(config, found), encoding="utf-8")
    print(json.dumps(summary(found, file), indent=2) if JSON.value else table(found, file))


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


def steps(text: str) -> range:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--ids={text} should be START:STOP, two steps such as 0:10")
    return range(int(match[1]), int(match[2]))


def ids(config: TrainConfig, steps: range) -> Iterator[str]:
    """One line for each step."""
    train, shares = loader.open_train(config)
    names, windows = zip(*train.items(), strict=True)
    order = loader.order(windows, shares, cache_gb=config.data.cache_gb, seed=config.seed, batch_size=config.batch_size)
    for step in steps:
        rows = []
        for number, index in zip(*order(step), strict=True):
            episode, frame = windows[number].locate(int(index))
            rows.append(f"{names[number]}{names[number] and '/'}{episode}:{frame}")
        yield f"{step}: {' '.join(rows)}"


if __name__ == "__main__":
    launch.run(main)
