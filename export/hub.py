"""Upload of an export to a model hub."""

from pathlib import Path

from kdnas.errors import KdnasError, UsageError


def upload(folder: Path, repository: str) -> str:
    """Upload a finished export and return its address.

    Args:
        folder: folder of a finished export.
        repository: owner/name; created as a private repository if it is missing.

    Raises:
        UsageError: the name is invalid, or the user has no right to write there.
        KdnasError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    kept = f"the export is in {folder}"
    if constants.HF_HUB_OFFLINE:
        raise KdnasError(f"push_to_hub '{repository}': HF_HUB_OFFLINE is set; unset it. {kept}")
    hub = HfApi()
    try:
        name = hub.create_repo(repository, private=True, exist_ok=True).repo_id
        return str(hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export by kdnas"))
    except HFValidationError as error:
        raise UsageError(f"push_to_hub '{repository}': give owner/name ({error}). {kept}") from error
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"push_to_hub '{repository}': refused ({reason}); run `hf auth login` first. {kept}"
        ) from error
    except OSError as error:
        raise KdnasError(f"push_to_hub '{repository}': the hub cannot be reached ({error}). {kept}") from error
