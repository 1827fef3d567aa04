"""Uploading an export to a fake hub, and the errors without one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from kdnas.errors import KdnasError, UsageError
from kdnas.export.hub import upload


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def refuse(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def test_a_folder_is_uploaded_to_a_private_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def create(self: HfApi, name: str, **settings: Any) -> SimpleNamespace:
        calls.append({"name": name, **settings})
        return SimpleNamespace(repo_id=name)

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, **settings: calls.append(settings) or "https://hub/me/small"
    )
    assert upload(tmp_path, "me/small") == "https://hub/me/small"
    assert calls[0] == {"name": "me/small", "private": True, "exist_ok": True}
    assert calls[1]["repo_id"] == "me/small"
    assert calls[1]["folder_path"] == tmp_path


def test_upload_errors_are_reported_with_the_path_of_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"give owner/name.*the export is in"):
        upload(tmp_path, "not/a/name")
    response = requests.Response()
    response.status_code = 401
    monkeypatch.setattr(HfApi, "create_repo", refuse(HfHubHTTPError("401 Unauthorized", response=response)))
    with pytest.raises(UsageError, match=r"401 Unauthorized.*hf auth login.*the export is in"):
        upload(tmp_path, "me/small")
    monkeypatch.setattr(HfApi, "create_repo", refuse(requests.ConnectionError("no route")))
    with pytest.raises(KdnasError, match=r"cannot be reached.*the export is in"):
        upload(tmp_path, "me/small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(KdnasError, match="HF_HUB_OFFLINE is set"):
        upload(tmp_path, "me/small")
