"""Certificates are kept in the calibration file, and make no other calibration of it."""

import json

import pytest
from worlds import calibration

from guardrail.calibration.certificates import Certificate
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.types import Configuration

FULL = Configuration(engine="transformers", dtype="float32", versions=("torch 2.13.0",))
HALF = Configuration(engine="transformers", dtype="bfloat16", versions=("torch 2.13.0",))


def certificate(configuration=FULL, **keys):
    return Certificate(configuration=configuration, created="2026-01-01T00:00:00+00:00", prompts=500, **keys)


def test_certificates_are_kept_and_do_not_change_the_hash(tmp_path):
    plain = calibration()
    made = plain.certified(certificate(max_age_days=90.0, policies=("no-malice",)), certificate(HALF))
    made.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read == made
    assert read.sha256 == plain.sha256
    assert [one.configuration for one in read.certificates] == [FULL, HALF]


def test_a_file_without_certificates_stays_as_it_was(tmp_path):
    calibration().save(tmp_path / "c.json")
    assert "certificates" not in json.loads((tmp_path / "c.json").read_text())


def test_a_new_certificate_replaces_the_older_one_of_its_configuration():
    made = calibration().certified(certificate(), certificate(HALF)).certified(certificate(max_age_days=1.0))
    assert {one.configuration.dtype: one.max_age_days for one in made.certificates} == {
        "bfloat16": None,
        "float32": 1.0,
    }


@pytest.mark.parametrize("keys", [{"created": "soon"}, {"max_age_days": 1e300}])
def test_dates_that_cannot_be_read_are_found_when_the_file_is_loaded(tmp_path, keys):
    calibration().certified(certificate(max_age_days=1.0)).save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    content["certificates"][0] |= keys
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=r"c\.json: a certificate has dates that cannot be read"):
        Calibration.load(tmp_path / "c.json")


def test_what_differs_is_said_in_words():
    assert FULL.differences(HALF) == ("dtype float32, now bfloat16",)
    assert FULL.differences(Configuration(engine="vllm", dtype="float32")) == (
        "engine transformers, now vllm",
        "versions torch 2.13.0, now none",
    )
