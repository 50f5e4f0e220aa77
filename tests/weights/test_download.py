import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.weights import download
from pizero_jax.weights.download import fetch


class Server(http.server.ThreadingHTTPServer):
    """A host whose faults can be set, and which keeps a list of what it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}  # path -> contents, or a page of JSON
        self.headers: dict[str, dict[str, str]] = {}
        self.breaks: list[int] = []  # bytes after which the next transfers break off
        self.errors: list[int] = []  # statuses of the next answers
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path, range
        self.authorised: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, urllib.parse.unquote(self.path)
        server.asked.append((path, self.headers["Range"]))
        server.authorised.append(self.headers["Authorization"])
        if server.errors:
            return self.send_error(server.errors.pop(0))
        if path not in server.files:
            return self.send_error(404)
        body, extra = server.files[path], server.headers.get(path, {})
        if "Location" in extra:
            self.send_response(302)
        elif self.headers["Range"] and server.ranges and self.headers.get("If-Range") in (None, extra.get("ETag")):
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            body = body[begin:]
        else:
            self.send_response(200)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(download, "GOOGLE", server.url)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("PIZERO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


CONTENTS = np.random.default_rng(0).bytes(3_000_000)
SMALL = b'{"a": 1}\n'


def md5(contents: bytes) -> str:
    return base64.b64encode(hashlib.md5(contents).digest()).decode()


def bucket(server, files: dict[str, bytes], prefix: str) -> None:
    """Objects of Google Cloud Storage, listed on two pages."""
    items = [{"name": name, "size": str(len(x)), "md5Hash": md5(x)} for name, x in files.items()]
    fields = "&fields=items(name,size,md5Hash),nextPageToken"
    url = f"/storage/v1/b/models/o?prefix={prefix}{fields}"
    server.files[url] = json.dumps({"items": items[:1], "nextPageToken": "p2"}).encode()
    server.files[f"{url}&pageToken=p2"] = json.dumps({"items": items[1:]}).encode()
    server.files |= {f"/models/{name}": x for name, x in files.items()}


def test_a_local_path_is_itself(server, tmp_path):
    assert fetch(str(tmp_path / "a")) == tmp_path / "a"
    assert fetch("relative/b") == Path("relative/b")
    assert not server.asked


def test_a_file_is_fetched_once_and_written_down(server, tmp_path):
    server.files["/a/w.npz"] = CONTENTS
    place = fetch(f"{server.url}/a/w.npz")
    assert place.read_bytes() == CONTENTS
    assert place.is_relative_to(tmp_path / "cache" / "http")
    record = json.loads(place.with_name("w.npz.fetched.json").read_text())
    assert record["files"][""] | {"url": ""} == {
        "url": "",
        "size": len(CONTENTS),
        "sha256": hashlib.sha256(CONTENTS).hexdigest(),
    }
    server.files["/a/w.npz"] = b"other"
    assert fetch(f"{server.url}/a/w.npz").read_bytes() == CONTENTS
    assert len(server.asked) == 1


@pytest.mark.parametrize("how", ["shortened", "lengthened", "gone", "record"])
def test_a_broken_entry_of_the_cache_is_fetched_again(server, how):
    server.files["/w"] = CONTENTS
    place = fetch(f"{server.url}/w")
    record = place.with_name("w.fetched.json")
    match how:
        case "shortened":
            place.write_bytes(CONTENTS[:-1])
        case "lengthened":
            place.write_bytes(CONTENTS + b"x")
        case "gone":
            place.unlink()
        case "record":
            record.write_text(record.read_text()[:40])
    assert fetch(f"{server.url}/w").read_bytes() == CONTENTS
    assert fetch(f"{server.url}/w") == place
    assert len(server.asked) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_or_starts_again(server, ranges):
    server.files["/w"], server.headers["/w"] = CONTENTS, {"ETag": '"1"'}
    server.ranges, server.breaks = ranges, [1_000_000, 1_500_000]
    assert fetch(f"{server.url}/w").read_bytes() == CONTENTS
    first = [None, "bytes=1000000-"]
    assert [asked for _, asked in server.asked] == [*first, "bytes=2500000-" if ranges else "bytes=1500000-"]


def test_errors_that_may_pass_are_waited_for(server):
    server.files["/w"], server.errors = CONTENTS, [503, 429, 500]
    assert fetch(f"{server.url}/w").read_bytes() == CONTENTS


def test_a_transfer_that_gets_no_further_is_reported_and_completed_by_a_later_call(server):
    bucket(server, {"w": CONTENTS}, "w")
    pages = [10_000, 10_000]  # longer than they are
    server.breaks = [*pages, 1_000_000, *[0] * download.TRIES]
    with pytest.raises(InputError, match=r"/models/w breaks off, 5 times .*: 1000000 of 3000000 bytes arrived"):
        fetch("gs://models/w")
    server.breaks = []
    server.asked.clear()
    assert fetch("gs://models/w").read_bytes() == CONTENTS
    assert server.asked[-1] == ("/models/w", "bytes=1000000-")


def test_a_file_that_changes_at_the_host_meanwhile_is_not_mixed(server):
    server.files["/w"], server.headers["/w"], server.breaks = CONTENTS, {"ETag": '"1"'}, [1_000_000]
    changed = bytes(reversed(CONTENTS))
    serve = Handler.do_GET

    def change_after_the_first(handler):
        serve(handler)
        server.files["/w"], server.headers["/w"] = changed, {"ETag": '"2"'}

    Handler.do_GET = change_after_the_first
    try:
        assert fetch(f"{server.url}/w").read_bytes() == changed
    finally:
        Handler.do_GET = serve


def test_a_checksum_of_the_host_is_held_against_the_file(server):
    server.files["/w"] = CONTENTS
    server.headers["/w"] = {"x-goog-hash": f"crc32c=AAAAAA==, md5={md5(CONTENTS)}"}
    place = fetch(f"{server.url}/w")
    record = json.loads(place.with_name("w.fetched.json").read_text())
    assert record["files"][""]["md5"] == hashlib.md5(CONTENTS).hexdigest()
    server.files["/v"] = CONTENTS[:-1] + b"x"
    server.headers["/v"] = {"x-goog-hash": f"md5={md5(CONTENTS)}"}
    with pytest.raises(InputError, match="does not have the host's checksum"):
        fetch(f"{server.url}/v")
    assert not place.with_name("v").exists()
    assert not place.with_name("v.fetched.json").exists()


def test_a_stale_part_is_thrown_away_once_its_checksum_is_known(server, tmp_path):
    bucket(server, {"w": CONTENTS}, "w")
    part = tmp_path / "cache" / "gs" / "models" / "w.partial"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another file")
    assert fetch("gs://models/w").read_bytes() == CONTENTS


def test_a_folder_of_a_bucket_is_fetched_with_all_below_and_nothing_beside(server):
    files = {"m/pi0/params/a": CONTENTS, "m/pi0/params/b c": SMALL, "m/pi0/": b"", "m/pi0_fast/a": SMALL}
    files["m/pi0/empty"] = b""
    bucket(server, files, "m/pi0")
    place = fetch("gs://models/m/pi0/")
    found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert found == {"params/a": CONTENTS, "params/b_c": SMALL, "empty": b""}
    asked = len(server.asked)
    assert fetch("gs://models/m/pi0") == place
    assert len(server.asked) == asked
    (place / "params" / "a").write_bytes(b"")
    fetch("gs://models/m/pi0")
    assert (place / "params" / "a").read_bytes() == CONTENTS
    assert server.asked[-1][0] == "/models/m/pi0/params/a"  # the others were looked at, not fetched


def hub(server, files: dict[str, bytes]) -> None:
    """A model whose .safetensors lie at another host, as large files do."""
    tree = [{"type": "directory", "path": "sub", "oid": "0", "size": 0}]
    for name, x in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(x) + x).hexdigest()
        large = {"lfs": {"oid": hashlib.sha256(x).hexdigest(), "size": len(x)}} if "safetensors" in name else {}
        tree.append({"type": "file", "path": name, "oid": blob, "size": len(x), **large})
        server.files[f"/lerobot/pi0/resolve/main/{name}"] = b"" if large else x
        if large:
            server.files[f"/elsewhere/{name}"] = x
            server.headers[f"/lerobot/pi0/resolve/main/{name}"] = {"Location": f"{server.url}/elsewhere/{name}"}
    url = "/api/models/lerobot/pi0/tree/main?recursive=true"
    server.files[url], server.files[f"{url}&cursor=2"] = json.dumps(tree[:2]).encode(), json.dumps(tree[2:]).encode()
    server.headers[url] = {"Link": f'<{server.url}{url}&cursor=2>; rel="next"'}


def test_a_model_of_the_hub_is_fetched_whole_or_one_file_of_it(server, monkeypatch):
    hub(server, {"config.json": SMALL, "model.safetensors": CONTENTS, "sub/config.json": SMALL})
    monkeypatch.setenv("HF_TOKEN", "secret")
    place = fetch("hf://lerobot/pi0")
    found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "sub/config.json"}
    assert (place / "model.safetensors").read_bytes() == CONTENTS
    told = dict(zip((path for path, _ in server.asked), server.authorised, strict=True))
    assert told["/elsewhere/model.safetensors"] is None
    assert {x for path, x in told.items() if path != "/elsewhere/model.safetensors"} == {"Bearer secret"}
    monkeypatch.setenv("PIZERO_CACHE", str(place.parent / "second"))
    assert fetch("hf://lerobot/pi0/config.json").read_bytes() == SMALL


def test_a_small_file_of_the_hub_is_checked_too(server):
    hub(server, {"config.json": SMALL})
    server.files["/lerobot/pi0/resolve/main/config.json"] = SMALL.replace(b"1", b"2")
    with pytest.raises(InputError, match="does not have the host's checksum"):
        fetch("hf://lerobot/pi0")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://models/a", "allowed are local paths and gs://, hf://, https://, http://"),
        ("gs://models", "is a whole bucket"),
        ("gs://models/none", "no such object or folder"),
        ("hf://lerobot", "should be hf://owner/name"),
        ("hf://lerobot/none", "404"),
        ("hf://lerobot/pi0/none.safetensors", "no such file"),
        ("{url}/none", "404"),
        ("{url}/../../etc", "not a path below a host"),
    ],
)
def test_what_is_not_there_is_reported(server, source, message):
    hub(server, {"config.json": SMALL})
    fields = "&fields=items(name,size,md5Hash),nextPageToken"
    server.files[f"/storage/v1/b/models/o?prefix=none{fields}"] = b"{}"
    with pytest.raises(InputError, match=message):
        fetch(source.format(url=server.url))


def test_a_file_with_terms_to_accept_names_the_token(server):
    hub(server, {"config.json": SMALL})
    server.errors = [401]
    with pytest.raises(InputError, match=r"401 .*needs \$HF_TOKEN"):
        fetch("hf://lerobot/pi0")
