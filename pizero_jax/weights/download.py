"""Weights from elsewhere, kept in a cache: whole, checked against the host's checksums, and written down beside them.

`$PIZERO_CACHE` (by default ~/.cache/pizero_jax) mirrors the addresses: gs/bucket/path, hf/owner/name, https/host/path.
`<path>.fetched.json` beside what was fetched lists its files with size and SHA-256; it is written last.
"""

import base64
import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tqdm import tqdm

from pizero_jax.errors import InputError

GOOGLE = "https://storage.googleapis.com"
BLOCK = 1 << 20  # bytes
TRIES = 5  # in a row that get no further
PAUSE = 1.0  # seconds before the second try, doubled each time


class Remote(NamedTuple):
    """One file at a host: its place below what was asked for, and what the host says of it."""

    path: str  # "" for what was asked for itself
    url: str
    size: int | None = None
    digests: Mapping[str, str] = MappingProxyType({})  # "sha256", "md5" or "git" (blob id) -> hex
    etag: str = ""


def fetch(source: str) -> Path:
    """Where `source` lies on this machine, once it does.

    Args:
      source: a local path, returned as it is; or gs://bucket/path (a public object, or all below the path),
        hf://owner/name[/path] (the main revision; with $HF_TOKEN, if set, and from $HF_ENDPOINT), or the address of
        one file, https://....

    Raises:
      InputError: there is no such thing, it may not be read, or the transfer broke off again and again. What has
        arrived is kept, and where the host has checksums (gs, hf) the next call goes on from there.
    """
    scheme, found, rest = source.partition("://")
    if not found:
        return Path(source)
    if scheme not in HOSTS:
        raise InputError(f"{source}: allowed are local paths and {', '.join(f'{name}://' for name in HOSTS)}")
    place = cache() / scheme / safe(rest)
    record = place.with_name(f"{place.name}.fetched.json")
    if is_whole(place, record):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with alone(place):
        if not is_whole(place, record):
            entries = download(source, HOSTS[scheme](rest), place)
            replace(record, json.dumps({"source": source, "files": entries}, indent=2) + "\n")
    return place


def cache() -> Path:
    return Path(os.environ.get("PIZERO_CACHE") or "~/.cache/pizero_jax").expanduser()


def safe(path: str) -> str:
    """A relative path that stays below its folder."""
    parts = [part for part in re.sub(r"[^\w.\-/+=]", "_", path).split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise InputError(f"{path} is not a path below a host")
    return "/".join(parts)


def is_whole(place: Path, record: Path) -> bool:
    """All files of the record have the size that they had when their checksums were right."""
    try:
        files = json.loads(record.read_text())["files"]
        return all((place / path).stat().st_size == entry["size"] for path, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Other processes that want the same wait."""
    with open(place.with_name(f"{place.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def download(source: str, remotes: list[Remote], place: Path) -> dict[str, Any]:
    """All files in their places; for each, its size and checksums."""
    total = sum(remote.size or 0 for remote in remotes) or None
    with tqdm(total=total, desc=source, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        paths = [safe(remote.path) if remote.path else "" for remote in remotes]
        return {path: one_file(remote, place / path, bar) for path, remote in zip(paths, remotes, strict=True)}


def one_file(remote: Remote, target: Path, bar: tqdm) -> dict[str, Any]:
    """One file in its place, after its checksums were found right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    if target.is_file():
        target.replace(partial)  # of an earlier call: looked at again, and completed or replaced
    if not remote.digests:
        partial.unlink(missing_ok=True)  # nothing would tell whether the host still has the same
    partial.touch()
    for _ in range(2):
        bar.update(partial.stat().st_size)
        remote = transfer(remote, partial, bar)
        digests = {name: digest(partial, name) for name in {"sha256", *remote.digests}}
        if all(digests[name] == value for name, value in remote.digests.items()):
            partial.replace(target)
            return {"url": remote.url, "size": remote.size, **digests}
        bar.update(-partial.stat().st_size)
        partial.write_bytes(b"")
    raise InputError(f"{remote.url}: what arrives does not have the host's checksum {dict(remote.digests)}")


def transfer(remote: Remote, partial: Path, bar: tqdm) -> Remote:
    """Bytes into `partial` until all are there; returns what is known of the file by then."""
    failures, most, fault = 0, partial.stat().st_size, None
    while failures < TRIES:
        begin = partial.stat().st_size
        if begin == remote.size:
            return remote
        again = {"Range": f"bytes={begin}-"} | ({"If-Range": remote.etag} if remote.etag else {})
        try:
            with request(remote.url, again if begin and (remote.digests or remote.etag) else {}) as response:
                begin = begin if (response.headers.get("Content-Range") or "").startswith(f"bytes {begin}-") else 0
                remote = told(remote, response.headers, begin)
                bar.total = bar.total or remote.size
                receive(response, partial, begin, bar)
            if remote.size is None:  # the host did not say: the file ends where the transfer does
                return remote._replace(size=partial.stat().st_size)
            fault = f"{partial.stat().st_size} of {remote.size} bytes arrived"
        except (OSError, HTTPException) as error:
            fault = error
        if partial.stat().st_size > (remote.size or math.inf) or getattr(fault, "code", None) == 416:
            partial.write_bytes(b"")  # not that file
            most = 0
        failures = 0 if partial.stat().st_size > most else failures + 1
        most = max(most, partial.stat().st_size)
        time.sleep(PAUSE * (2**failures - 1))
    raise InputError(f"{remote.url} breaks off, {TRIES} times without getting further: {fault}; call again later")


def receive(response: Any, partial: Path, begin: int, bar: tqdm) -> None:
    """What arrives, from byte `begin` of the file on."""
    with open(partial, "r+b") as file:
        bar.update(begin - file.seek(0, os.SEEK_END))
        file.truncate(begin)
        file.seek(begin)
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))


def told(remote: Remote, headers: HTTPMessage, begin: int) -> Remote:
    """What the headers of a response add: the size, and checksums where the host sends some."""
    size = remote.size
    if size is None and headers.get("Content-Length") and not headers.get("Content-Encoding"):
        size = begin + int(headers["Content-Length"])
    found = {}
    for name, pattern in (("sha256", r"sha-256=:?([\w+/=]+)"), ("md5", r"\bmd5=:?([\w+/=]+)")):
        for header in ("Repr-Digest", "Digest", "x-goog-hash"):
            if match := re.search(pattern, ",".join(headers.get_all(header, [])), re.IGNORECASE):
                found[name] = base64.b64decode(match[1]).hex()
    etag = headers.get("ETag") or ""
    return remote._replace(
        size=size,
        digests=MappingProxyType({**found, **remote.digests}),
        etag="" if etag.startswith("W/") else etag,  # weak ones do not tell bytes
    )


def digest(file: Path, name: str) -> str:
    if name == "git":  # of a blob
        sha1 = hashlib.sha1(b"blob %d\0" % file.stat().st_size)
        with open(file, "rb") as stream:
            while block := stream.read(BLOCK):
                sha1.update(block)
        return sha1.hexdigest()
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, name).hexdigest()


def request(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    """An open response.

    Raises:
      InputError: the host answers that this will not do. What may pass is an OSError.
    """
    asked = urllib.request.Request(url, headers={"User-Agent": "pizero_jax", **headers})
    token = os.environ.get("HF_TOKEN")
    if token and url.startswith(f"{hub()}/"):
        asked.add_unredirected_header("Authorization", f"Bearer {token}")  # the hub redirects to other hosts
    try:
        return urllib.request.urlopen(asked, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code in (408, 416, 429):
            raise
        hint = "; a file with terms to accept needs $HF_TOKEN" if error.code in (401, 403) else ""
        raise InputError(f"{url}: {error.code} {error.reason}{hint}") from error


def answer(url: str) -> tuple[Any, HTTPMessage]:
    """The JSON at a URL, and the headers that came with it."""
    for attempt in range(TRIES):
        try:
            with request(url) as response:
                return json.load(response), response.headers
        except (OSError, HTTPException, json.JSONDecodeError) as error:
            fault = error
            time.sleep(PAUSE * 2**attempt)
    raise InputError(f"{url} does not answer: {fault}")


def hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def google_objects(path: str) -> list[Remote]:
    """A public object of Google Cloud Storage, or all below a path.

    Source: cloud.google.com/storage/docs/json_api/v1/objects/list.
    """
    bucket, _, prefix = path.rstrip("/").partition("/")
    if not prefix:
        raise InputError(f"gs://{path} is a whole bucket; name an object or a folder in it")
    asked, found = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}, []
    while True:
        page, _ = answer(f"{GOOGLE}/storage/v1/b/{quote(bucket)}/o?{urlencode(asked)}")
        for item in page.get("items", []):
            below = item["name"].removeprefix(prefix)
            if below[:1] not in ("", "/") or item["name"].endswith("/"):
                continue  # another name that begins alike, or a marker of a folder
            digests = {"md5": base64.b64decode(item["md5Hash"]).hex()} if "md5Hash" in item else {}
            url = f"{GOOGLE}/{quote(bucket)}/{quote(item['name'])}"
            found.append(Remote(below.strip("/"), url, int(item["size"]), digests))
        if "nextPageToken" not in page:
            break
        asked["pageToken"] = page["nextPageToken"]
    if not found:
        raise InputError(f"gs://{path}: there is no such object or folder, or it is not public")
    return found


def hub_files(path: str) -> list[Remote]:
    """A file of a model on the hub, or all of them; large ones have a SHA-256, small ones git's blob id.

    Source: huggingface.co/docs/hub/api.
    """
    if "/" not in path.strip("/"):
        raise InputError(f"hf://{path} should be hf://owner/name or hf://owner/name/file")
    owner, name, *inside = path.strip("/").split("/")
    below, found = "/".join(inside), []
    url = f"{hub()}/api/models/{quote(owner)}/{quote(name)}/tree/main?recursive=true"
    while url:
        page, headers = answer(url)
        for item in page:
            rest = item["path"].removeprefix(below)
            elsewhere = below and (not item["path"].startswith(below) or rest[:1] not in ("", "/"))
            if item["type"] != "file" or elsewhere:
                continue
            large = item.get("lfs")
            digests = {"sha256": large["oid"]} if large else {"git": item["oid"]}
            resolved = f"{hub()}/{quote(owner)}/{quote(name)}/resolve/main/{quote(item['path'])}"
            found.append(Remote(rest.strip("/"), resolved, item["size"], digests))
        link = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("Link") or "")
        url = link[1] if link else None
    if not found:
        raise InputError(f"hf://{path}: the model has no such file")
    return found


def web_file(scheme: str, rest: str) -> list[Remote]:
    return [Remote("", f"{scheme}://{rest}")]


HOSTS = {
    "gs": google_objects,
    "hf": hub_files,
    "https": functools.partial(web_file, "https"),
    "http": functools.partial(web_file, "http"),
}
