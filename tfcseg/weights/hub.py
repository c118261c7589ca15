"""Find models of the Hugging Face hub, ``ORG/NAME[@REVISION]``, in its cache or, if allowed, on the network.

A newer revision than the cached one is fetched only if it is named.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tfcseg.errors import WeightsError
from tfcseg.weights.segformer_file import FOLDER_FILES

logger = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")
_BESIDE = ["config.json", "preprocessor_config.json", "README.md", "LICENSE*"]


class HubName(NamedTuple):
    """A model of the hub; ``revision`` is a commit, a tag or a branch, None for the main branch."""

    repository: str
    revision: str | None


def hub_name(text: str) -> HubName | None:
    """The hub model that ``text`` names; None if it is a file or folder, or not a valid name."""
    match = _NAME.fullmatch(text)
    is_file = Path(text).exists() or text.endswith((".safetensors", ".pth", ".pt", ".bin"))
    return HubName(match["repository"], match["revision"]) if match and not is_file else None


def find_on_hub(name: HubName, *, allow_network: bool, notify: Callable[[str], None] = warnings.warn) -> Path:
    """Folder of the model in the hub's cache, downloaded first if that is allowed; WeightsError if there is none.
    ``notify`` receives a line with the licence before the weights are fetched."""
    shown = "@".join(filter(None, name))
    if importlib.util.find_spec("huggingface_hub") is None:
        raise WeightsError(f"no file or folder {shown!r}; models of the hub need: pip install huggingface_hub")
    folder = _in_cache(name)
    if folder is None and not allow_network:
        raise WeightsError(
            f"no file or folder {shown!r}, and no such model in the cache of huggingface_hub; "
            "--allow-network fetches it from there"
        )
    if folder is None:
        folder = _fetch(name, shown, notify)
    logger.info("%s is revision %s, in %s", name.repository, folder.name, folder)
    return folder


def _in_cache(name: HubName) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = [try_to_load_from_cache(name.repository, file, revision=name.revision) for file in FOLDER_FILES]
    except ValueError:  # the hub has no such names
        return None
    folders = [Path(path).parent for path in found if isinstance(path, str)]
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _fetch(name: HubName, shown: str, notify: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    with _errors_in_one_line(shown):
        info = HfApi().model_info(name.repository, revision=name.revision)
    files = {file.rfilename for file in info.siblings or ()}
    weights = next((file for file in FOLDER_FILES if file in files), None)
    if weights is None:
        raise WeightsError(f"{shown} has neither {' nor '.join(FOLDER_FILES)} on the hub; nothing was fetched")
    terms = [getattr(info.card_data, key, None) for key in ("license_name", "license", "license_link")]
    licence = ", ".join(str(term) for term in terms if term) or "not stated"
    notify(f"{shown} is fetched from the Hugging Face hub; its licence: {licence}")
    with _errors_in_one_line(shown):
        return Path(snapshot_download(name.repository, revision=name.revision, allow_patterns=[*_BESIDE, weights]))


@contextmanager
def _errors_in_one_line(shown: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the exceptions are those of its HTTP library, which changes between versions
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{shown} cannot be fetched from the Hugging Face hub: {reason}") from error
