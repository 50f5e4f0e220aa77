"""What belongs to a saved step: one line for each of its files, in the format of `sha256sum`.

A step is whole if its files are those of its manifest, which is written last. Orbax notices truncated and missing
files, but loads flipped bytes of arrays, a missing commit marker and empty metadata without a word (0.12.8, measured).
By hand: `sha256sum --check manifest.sha256`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from etils import epath

FILE = "manifest.sha256"
THREADS = 4  # that read and hash files, each one file
BLOCK = 1 << 20  # bytes; hashlib releases the interpreter's lock while it works on one

Parts = Callable[[set[str]], set[str]]
"""From the names of the saved parts, a folder each, to those that are meant."""


def write(step: epath.Path) -> None:
    """Hashes all files of a step and writes its manifest, which is there as a whole or not at all."""
    names = sorted(_files(step))
    scratch = step / f"{FILE}.part"
    scratch.write_text(_text(dict(zip(names, _hashes(step, names), strict=True))))
    scratch.replace(step / FILE)


def fault(step: epath.Path, parts: Parts, *, share: tuple[int, int] = (0, 1)) -> str:
    """What is wrong with a step, naming the file; empty if its `parts` and what lies beside them are whole.

    Args:
      share: (i, n) hashes only each n-th file, from the i-th; their sizes are about alike.
    """
    if not (step / FILE).exists():
        return f"{step} has no {FILE}: its writing was cut off, or goes on"
    try:
        return _difference(step, _parse((step / FILE).read_bytes().decode()), parts, share)
    except OSError as error:  # of a broken disk
        return f"{error.filename or step} cannot be read: {error.strerror}"
    except ValueError:
        return f"{step / FILE} is damaged"


def _difference(step: epath.Path, recorded: Mapping[str, str], parts: Parts, share: tuple[int, int]) -> str:
    """What is there otherwise than recorded."""
    wanted = parts({name.split("/")[0] for name in recorded if "/" in name})
    recorded = {name: digest for name, digest in recorded.items() if "/" not in name or name.split("/")[0] in wanted}
    sizes = {name: size for name, size in _files(step).items() if "/" not in name or name.split("/")[0] in wanted}
    for name in sorted(recorded.keys() ^ sizes.keys()):
        return f"{step / name} " + ("is missing" if name in recorded else f"is not in {FILE}")
    index, count = share
    mine = sorted(sizes, key=lambda name: (sizes[name], name))[index::count]
    for name, digest in zip(mine, _hashes(step, mine), strict=True):
        if digest != recorded[name]:
            return f"{step / name} does not fit its sum in {FILE}"
    return ""


def _text(digests: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def _parse(text: str) -> dict[str, str]:
    """The inverse of `_text`; ValueError for all that it does not write."""
    digests = dict(reversed(line.split("  ", 1)) for line in text.split("\n")[:-1])
    if not digests or _text(digests) != text:
        raise ValueError(text)
    return digests


def _files(step: epath.Path) -> dict[str, int]:
    """Sizes by name, of all but the manifest."""

    def walk(folder: epath.Path) -> Iterator[epath.Path]:
        for path in folder.iterdir():
            yield from walk(path) if path.is_dir() else [path]

    sizes = {path.relative_to(step).as_posix(): path.stat().length for path in walk(step)}
    sizes.pop(FILE, None)
    return sizes


def _hashes(step: epath.Path, names: list[str]) -> list[str]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda name: _sha256(step / name), names))


def _sha256(file: epath.Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
