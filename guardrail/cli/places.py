"""Where results go, looked at before the work that leads to them."""

from __future__ import annotations

from pathlib import Path

from guardrail.errors import ConfigError


def check_file(path: Path | None) -> None:
    """Raises ConfigError for a file that cannot be written: in no folder, or a folder itself."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no such folder")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder")


def make_folder(path: Path | None, option: str) -> None:
    """Raises ConfigError for a folder that cannot be made."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be made: {error.strerror}") from error
