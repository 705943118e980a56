"""The secret of a log: where it comes from, what it signs, what it hides."""

import logging

import pytest
from pydantic import ValidationError

from guardrail.audit.keys import Key, alias, is_signed, load_key
from guardrail.errors import ConfigError
from guardrail.plugins.audit import KeySource

SECRET = "0123456789abcdef"
KEY = Key(SECRET.encode())
LINE = b'{"v":1,"record":{}}'


def test_a_signed_line_is_the_line_with_one_key_more():
    signed = KEY.signed(LINE)
    assert signed.startswith(b'{"v":1,"record":{},"mac":"')
    assert is_signed(signed)
    assert KEY.fits(signed)
    assert not is_signed(LINE)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"v":1', b'"v":2'),
        lambda line: line[:-3] + (b"0" if line[-3:-2] != b"0" else b"1") + line[-2:],
        lambda line: line + b" ",
        lambda line: line.replace(b"{}", b"{} "),
        lambda _: Key(b"another secret, as long").signed(LINE),
        lambda _: LINE,
    ],
)
def test_no_other_line_fits(change):
    assert not KEY.fits(change(KEY.signed(LINE)))


def test_an_alias_is_the_same_for_the_same_id_and_the_same_key_only():
    other = Key(b"another secret, as long")
    assert alias("c-17", KEY) == alias("c-17", KEY) != alias("c-18", KEY)
    assert len({alias("c-17", KEY), alias("c-17", other), alias("c-17", None)}) == 3
    assert [alias("c-17", key).split(":")[0] for key in (KEY, None)] == ["hmac", "sha256"]


def test_what_an_alias_hides_signs_no_line():
    # otherwise who chooses a conversation's id could have lines signed
    assert KEY.alias(LINE.decode()).removeprefix("hmac:") not in KEY.signed(LINE).decode()


def test_a_key_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", f"{SECRET}\n")
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "key").chmod(0o600)
    assert load_key(KeySource(env="SOME_KEY")) == load_key(KeySource(file=str(tmp_path / "key"))) == KEY
    assert load_key(None) is None


def test_a_key_never_shows_itself():
    assert SECRET not in repr(KEY)


def test_a_key_that_is_missing_or_short_is_an_error_that_does_not_quote_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "too-short")
    with pytest.raises(ConfigError, match="9 bytes") as caught:
        load_key(KeySource(env="SOME_KEY"))
    assert "too-short" not in str(caught.value)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        load_key(KeySource(env="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_key(KeySource(file=str(tmp_path / "none")))


def test_a_key_that_others_can_read_is_warned_of(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text(SECRET)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, logger="guardrail"):
        load_key(KeySource(file=str(path)))
    assert "other users can read" in caplog.text


@pytest.mark.parametrize("given", [{}, {"env": "A", "file": "b"}])
def test_a_key_has_one_source(given):
    with pytest.raises(ValidationError, match="exactly one"):
        KeySource(**given)
