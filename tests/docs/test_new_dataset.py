"""The page docs/new_dataset.md, run from top to bottom as written."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "new_dataset.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page_runs_and_prints_what_it_says(capsys):
    namespace = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(text, namespace)
    printed = [text for language, text in BLOCKS if language == "text"]
    assert [capsys.readouterr().out] == printed


def test_an_entry_takes_less_than_thirty_lines():
    entry = next(text for language, text in BLOCKS if language == "python")
    assert len(entry.splitlines()) < 30


def test_the_page_counts_the_entries():
    from pizero_jax.data.embodiments import table

    assert f"{len(table.ENTRIES)}\nentries under {len(table.SPECIFICATIONS)} names" in PAGE
