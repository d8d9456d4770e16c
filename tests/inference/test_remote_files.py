"""Files at addresses: local paths, and a bucket over HTTP on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("moto", reason="needs moto[server]")
pytest.importorskip("s3fs", reason="needs s3fs")

from bucket_server import BucketServer

from u2net_hub.inference.cluster import remote_files
from u2net_hub.inference.cluster.lease import Lease, holds_lease

ODD = ["ä ö.jpg", "a#b?c%20d+e&f.jpg", "x/y//z.jpg", "[1]*.JPG"]


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    server = BucketServer()
    yield server
    server.close()


@pytest.fixture
def bucket(server: BucketServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty bucket, and this process's credentials for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    remote_files._file_system.cache_clear()
    name = f"b-{abs(hash(request.node.name))}"
    server.make_bucket(name)
    server.busy_every, server.denies, server.refused = 0, False, 0
    return f"s3://{name}"


def test_five_thousand_keys_are_listed_in_pages(server: BucketServer, bucket: str) -> None:
    for i in range(5000):
        server.put(bucket[5:], f"in/{i:04d}.jpg", b"")
    pages = list(remote_files.list_tree(f"{bucket}/in", (".jpg",)))
    assert [entry.key for page in pages for entry in page] == [f"{i:04d}.jpg" for i in range(5000)]
    assert {len(page) for page in pages} == {1000}


def test_odd_keys_are_listed_read_and_written(server: BucketServer, bucket: str) -> None:
    for key in ODD:
        server.put(bucket[5:], f"in/{key}", key.encode())
    entries = [entry for page in remote_files.list_tree(f"{bucket}/in", (".jpg",)) for entry in page]
    assert {entry.key for entry in entries} == set(ODD)
    for entry in entries:
        content = remote_files.read_bytes(entry.address)
        assert content == entry.key.encode()
        assert entry.size == len(content)
        remote_files.write_bytes(f"{bucket}/out/{entry.key}", content)
    written = {key for key in server.contents(bucket[5:]) if key.startswith("out/")}
    assert written == {f"out/{key}" for key in ODD}


def test_folders_hidden_keys_and_the_destination_are_no_photos(server: BucketServer, bucket: str) -> None:
    for key in ("a.jpg", "folder.jpg/", ".b.jpg", ".c/d.jpg", "out/e.jpg", "outer/f.jpg", "notes.txt"):
        server.put(bucket[5:], key, b"")
    pages = remote_files.list_tree(bucket, (".jpg",), f"{bucket}/out")
    assert [entry.key for page in pages for entry in page] == ["a.jpg", "outer/f.jpg"]


def test_a_busy_bucket_is_asked_again(server: BucketServer, bucket: str) -> None:
    server.busy_every = 2
    for i in range(2):
        remote_files.write_bytes(f"{bucket}/{i}", b"x")
        assert remote_files.read_bytes(f"{bucket}/{i}") == b"x"
    assert server.refused >= 2


def test_wrong_credentials_are_an_error_that_names_them(server: BucketServer, bucket: str) -> None:
    server.denies = True
    with pytest.raises(OSError, match=r"check the credentials|InvalidAccessKeyId"):
        list(remote_files.list_tree(bucket, (".jpg",)))


def test_a_bucket_that_is_not_there_is_an_error(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        list(remote_files.list_tree("s3://no-such-bucket", (".jpg",)))


def test_one_run_holds_a_bucket_at_a_time(bucket: str) -> None:
    with Lease(f"{bucket}/out/_manifest", "one"):
        assert holds_lease(f"{bucket}/out/_manifest", "one")
        with pytest.raises(FileExistsError, match="another run writes"):
            Lease(f"{bucket}/out/_manifest", "two")
    with Lease(f"{bucket}/out/_manifest", "two"):
        assert holds_lease(f"{bucket}/out/_manifest", "two")


def test_one_run_holds_a_folder_at_a_time(tmp_path: Path) -> None:
    folder = str(tmp_path / "out/_manifest")
    with Lease(folder, "one"), pytest.raises(FileExistsError, match="another run writes"):
        Lease(folder, "two")
    assert not (tmp_path / "out").exists()  # nothing was written


def test_a_file_is_read_over_http(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"x")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        folder = f"http://127.0.0.1:{server.server_port}"
        assert remote_files.read_bytes(f"{folder}/a%20b.jpg") == b"x"
        with pytest.raises(FileNotFoundError, match="does not exist"):
            remote_files.read_bytes(f"{folder}/b.jpg")
        server.shutdown()


def test_an_unknown_kind_of_url_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"s4:// is not a kind of URL.*'s3'"):
        remote_files.read_bytes("s4://bucket/key")
