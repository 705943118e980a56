"""Files that are written whole or not at all: a full disk or a kill leaves the old one.

A kill can also leave a hidden file beside it, with the part that was written.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from secrets import token_hex

IN_PLACE = (errno.EACCES, errno.EPERM, errno.EBUSY)
"""What a folder that only holds this file says (a file mounted into a container): write into the file."""


def write_whole(path: str | Path, data: bytes) -> None:
    """Replace a file, where a link leads too, and keep its mode. Raises OSError.

    A pipe or a device gets the data as it is.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    part = target.with_name(f".{target.name[:100]}.{token_hex(4)}")
    try:
        _write(part, data)
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno not in IN_PLACE or not target.exists():
            raise
        target.write_bytes(data)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
