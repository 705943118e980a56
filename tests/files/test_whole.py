"""A file is the old one or the new one, whatever happens while it is written."""

import json
import os
import subprocess
import sys
import threading

import pytest
from worlds import VECTORS, calibration

from guardrail.files import whole
from guardrail.files.whole import write_whole

FULL = """
import resource, signal, sys
from guardrail.files.whole import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(sys.argv[1], b"x" * 2000)
"""
"""A process whose files get no larger than 1,000 bytes, as on a disk that is nearly full."""


@pytest.fixture
def old(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"old")
    return file


@pytest.fixture
def killed(monkeypatch):
    """Whoever writes is interrupted before the end."""
    monkeypatch.setattr(whole.os, "fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))


def test_a_file_is_replaced_with_its_mode_and_a_link_stays_one(tmp_path):
    file, link = tmp_path / "a.json", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    write_whole(tmp_path / "b", b"first")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b", "link"]


def test_a_full_disk_leaves_the_old_file_and_no_part(old):
    ended = subprocess.run([sys.executable, "-c", FULL, old], capture_output=True, check=False)
    assert b"File too large" in ended.stderr
    assert old.read_bytes() == b"old"
    assert [*old.parent.iterdir()] == [old]


@pytest.mark.parametrize("save", [calibration().save, VECTORS.save, lambda path: write_whole(path, b"new")])
def test_an_interruption_leaves_the_old_file_and_no_part(old, killed, save):
    with pytest.raises(KeyboardInterrupt):
        save(old)
    assert old.read_bytes() == b"old"
    assert [*old.parent.iterdir()] == [old]


def test_a_pipe_gets_what_is_written(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, json.dumps({}).encode())
    reader.join(5)
    assert got == [b"{}"]


def test_a_file_in_a_folder_that_takes_no_other_is_written_in_place(old, monkeypatch):
    def busy(self, target):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(whole.Path, "replace", busy)
    write_whole(old, b"new")
    assert old.read_bytes() == b"new"
    assert [*old.parent.iterdir()] == [old]
