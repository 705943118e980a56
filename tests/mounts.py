"""A folder as the kubelet mounts a ConfigMap: NAME -> ..data/NAME, ..data -> the newest folder."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path


class Mount:
    """`fill` puts the files of one generation into a folder."""

    def __init__(self, folder: Path, names: Sequence[str], fill: Callable[[Path], object]) -> None:
        self.folder = folder
        folder.mkdir()
        self.generation = 0
        self.swap(fill)
        for name in names:
            (folder / name).symlink_to(f"..data/{name}")

    def swap(self, fill: Callable[[Path], object]) -> None:
        """A new folder with everything in it, one rename, and the old folder goes."""
        before = self.folder / f"..{self.generation}"
        self.generation += 1
        new = self.folder / f"..{self.generation}"
        new.mkdir()
        fill(new)
        (self.folder / "..data_tmp").symlink_to(new.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")
        if before.exists():
            shutil.rmtree(before)
