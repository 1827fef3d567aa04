"""An S3 on loopback (moto), and what the tests look at in it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from kdnas.filtering.open_store import open_store
from kdnas.filtering.store import Store

from .filter_fixture import FATES


@contextmanager
def serving_s3() -> Iterator[str]:
    """The address of a running server.

    It answers one request at a time: moto's check of `If-None-Match` and its write are two steps, and those of S3 are one.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_s3(patch: pytest.MonkeyPatch, address: str) -> None:
    """Make every S3 client of this process and its children use the server."""
    given = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in given.items():
        patch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # an earlier server's address is remembered there


def s3() -> Any:
    """The file system, without remembered listings."""
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    return system


def names_in(url: str) -> list[str]:
    """Names of all objects below a URL, without it."""
    start = url.removeprefix("s3://") + "/"
    return sorted(key.removeprefix(start) for key in s3().find(start))


def s3_contents(url: str) -> dict[str, bytes]:
    """Name and content of every output file, as `filter_fixture.contents`."""
    wanted = [name for name in names_in(url) if name.partition("/")[0] in FATES]
    return {name: s3().cat_file(f"{url}/{name}") for name in wanted}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_s3() as found, pytest.MonkeyPatch.context() as patch:
        use_s3(patch, found)
        yield found


@pytest.fixture
def bucket(address: str, request: pytest.FixtureRequest) -> str:
    """The URL of a new bucket."""
    name = f"bucket-{abs(hash(request.node.name))}"
    s3().mkdir(name)
    return f"s3://{name}"


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> Store:
    return open_store(f"{bucket}/run" if request.param == "s3" else str(tmp_path / "run"))
