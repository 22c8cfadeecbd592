"""An exported folder on a model hub: sent there, and fetched by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from idd_seg.checkpoints.exported_folder import CONFIG, WEIGHTS
from idd_seg.errors import ConfigError, UserError

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def check_name(name: str) -> str:
    """Return the name of a repository on a hub.

    Raises:
        ConfigError: if it is no OWNER/NAME.
    """
    if not NAME.fullmatch(str(name)):
        raise ConfigError(f"'{name}' is no name on a hub; it must be OWNER/NAME, of letters, digits, '-', '_' and '.'")
    return str(name)


def check_push(name: str, formats: Sequence[str], private: object = True) -> None:
    """Look at what a push needs before anything is exported.

    Raises:
        ConfigError: for a name of another form, a folder that could not be read back, or without a token.
    """
    import huggingface_hub

    check_name(name)
    if not isinstance(private, bool):
        raise ConfigError(f"hub_private must be true or false, got '{private}'")
    if "safetensors" not in formats:
        raise ConfigError(
            "hub: the folder could not be read back without model.safetensors; add safetensors to formats"
        )
    if huggingface_hub.get_token() is None:
        raise ConfigError(
            f"hub={name}: there is no token to write there; set HF_TOKEN, or log in by `hf auth login`. Without hub "
            f"the folder is written all the same, and `hf upload {name} FOLDER` sends it later"
        )


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """Send an exported folder to the repository `OWNER/NAME`, which is made if it is not there; return its address.

    Raises:
        UserError: that says what the hub refused; the folder is left as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    later = f"the folder '{folder}' is whole, and `hf upload {name} {folder}` sends it later"
    with _told(f"hub={name}", later):
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A student exported by idd-seg")
    return address


def fetched(name: str, revision: str | None = None) -> Path:
    """Return the local folder of what `push` has sent: its configuration and weights alone, kept in the hub's cache.

    Args:
        revision: a branch, tag or commit; None takes the main branch as it is.

    Raises:
        ConfigError: if the name is no OWNER/NAME.
        UserError: if it can't be fetched.
    """
    from huggingface_hub import snapshot_download

    with _told(f"'{check_name(name)}'", "is it there, may you read it, and is the hub reached?"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))


@contextmanager
def _told(what: str, then: str) -> Iterator[None]:
    """Say in one line what a hub has refused."""
    try:
        yield
    except Exception as error:  # without an answer, what the client's transport raises, which differs by its version
        cause = " ".join(str(error).split())
        raise UserError(f"{what}: {type(error).__name__}: {cause[:300]}; {then}") from error
