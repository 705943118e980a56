"""Files of one owner, which others may close meanwhile."""

import os
from pathlib import Path

import pytest

from guardrail.files.private import make_private

pytestmark = pytest.mark.skipif(os.name == "nt", reason="file modes mean nothing there")


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_beside_a_database_may_go_while_it_is_looked_at(tmp_path, monkeypatch, caplog, mode):
    path, beside = tmp_path / "a.sqlite", tmp_path / "a.sqlite-wal"
    for file in (path, beside):
        file.touch()
        file.chmod(mode)
    stat = Path.stat

    def leaving(self, **how):
        found = stat(self, **how)
        if self == beside:
            beside.unlink()
        return found

    monkeypatch.setattr(Path, "stat", leaving)
    make_private(path)
    assert not os.path.exists(beside)
    assert "could not be changed" not in caplog.text
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_is_beside_the_file_that_a_link_leads_to_is_made_private(tmp_path):
    real, link = tmp_path / "disk" / "a.sqlite", tmp_path / "a.sqlite"
    real.parent.mkdir()
    beside = real.with_name("a.sqlite-wal")
    for file in (real, beside):
        file.touch(mode=0o644)
    link.symlink_to(real)
    make_private(link)
    assert [os.stat(file).st_mode & 0o777 for file in (real, beside)] == [0o600, 0o600]
