"""Thresholds are written into a policy file; everything else stays byte for byte."""

import pytest
from policy_files import load_policies

from guardrail.calibrate.policy_edit import edit, enforced, layered
from guardrail.errors import PolicyError
from guardrail.policy.model import FprThreshold, RawThreshold

FILE = """\
# a comment at the top
version: 1          # the only one

vectors:   "demo"   # quoted, with odd spaces
policies:
  - id: 'first'
    trait: evil
    threshold:   {fpr: 0.010}   # flow, and a comment
    action: block
    message: "fpr: 0.01 is no threshold"

  - threshold:
      # nested, block style
      raw: -1.5e+1
    id: second
    trait: evil
    action: {steer: {operator: cap, at: {percentile: 75}}}   # not a threshold of the policy

  - any_of: [{trait: evil, threshold: 2.0}, {trait: humor, threshold: 3, layer: 2}]
    id: third
    action: block
"""
NEW = {
    ("policies", 0, "threshold"): FprThreshold(fpr=0.0031),
    ("policies", 1, "threshold"): RawThreshold(raw=-14.25),
    ("policies", 2, "any_of", 1, "threshold"): 2.75,
}
EXPECTED = (
    FILE.replace("{fpr: 0.010}", "{fpr: 0.0031}")
    .replace("raw: -1.5e+1", "raw: -14.25")
    .replace("threshold: 3,", "threshold: 2.75,")
)


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_bytes(FILE.encode())
    return path


def changed_lines(text):
    return [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_only_the_values_change(policy):
    made = edit(policy, NEW)
    assert made.after == EXPECTED
    assert policy.read_text() == FILE
    made.write()
    assert policy.read_bytes() == EXPECTED.encode()
    assert load_policies(policy).policies[1].threshold == RawThreshold(raw=-14.25)


def test_the_diff_shows_each_changed_line_and_no_other(policy):
    assert changed_lines(edit(policy, NEW).diff()) == [
        "-    threshold:   {fpr: 0.010}   # flow, and a comment",
        "+    threshold:   {fpr: 0.0031}   # flow, and a comment",
        "-      raw: -1.5e+1",
        "+      raw: -14.25",
        "-  - any_of: [{trait: evil, threshold: 2.0}, {trait: humor, threshold: 3, layer: 2}]",
        "+  - any_of: [{trait: evil, threshold: 2.0}, {trait: humor, threshold: 2.75, layer: 2}]",
    ]


def test_a_value_that_is_right_already_is_not_touched(policy):
    made = edit(policy, {("policies", 0, "threshold"): FprThreshold(fpr=0.01)})
    assert made.after == FILE
    assert made.changes == ()
    assert made.diff() == ""


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("    action: block\n", "    action: block")])
def test_line_ends_and_a_missing_last_one_are_kept(policy, change):
    text = FILE.replace(*change) if change[0] == "\n" else FILE.removesuffix("\n")
    policy.write_bytes(text.encode())
    edit(policy, NEW).write()
    wanted = EXPECTED.replace(*change) if change[0] == "\n" else EXPECTED.removesuffix("\n")
    assert policy.read_bytes() == wanted.encode()


def test_a_byte_order_mark_and_other_scripts_are_kept(policy):
    text = FILE.replace("a comment at the top", "コメント 🦉")
    policy.write_bytes(b"\xef\xbb\xbf" + text.encode())
    edit(policy, NEW).write()
    assert (
        policy.read_bytes()
        == b"\xef\xbb\xbf" + EXPECTED.replace("a comment at the top", "コメント 🦉").encode()
    )


def test_the_mode_and_a_link_stay(policy, tmp_path):
    policy.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(policy)
    edit(link, NEW).write()
    assert link.is_symlink()
    assert policy.read_text() == EXPECTED
    assert policy.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "policy.yaml"]


def test_a_file_that_changed_meanwhile_is_left_alone(policy):
    made = edit(policy, NEW)
    policy.write_text(FILE + "# edited by somebody\n")
    with pytest.raises(PolicyError, match="changed while it was being calibrated"):
        made.write()
    assert policy.read_text() == FILE + "# edited by somebody\n"


def test_a_calibration_is_named_relative_to_the_file(policy, tmp_path):
    policy.write_text(FILE.replace("policies:\n", "calibration: old.json  # keep\npolicies:\n"))
    (tmp_path / "sub").mkdir()
    made = edit(policy, {}, tmp_path / "sub" / "new.json")
    assert changed_lines(made.diff()) == [
        "-calibration: old.json  # keep",
        "+calibration: sub/new.json  # keep",
    ]


@pytest.mark.parametrize("name", ["new.json", "odd: name #1.json", "日本.json"])
def test_a_calibration_is_added_where_there_is_none(policy, tmp_path, name):
    made = edit(policy, NEW, tmp_path / name)
    made.write()
    assert load_policies(policy).calibration == name
    lines = policy.read_text().splitlines()
    assert lines[4].startswith("calibration: ")
    assert "\n".join([*lines[:4], *lines[5:]]) + "\n" == EXPECTED


SHARED = """\
version: 1
policies:
  - {id: a, trait: evil, threshold: &t {fpr: 0.01}, action: block}
  - {id: b, trait: humor, threshold: *t, action: block}
"""


def test_a_value_that_an_alias_shares_changes_only_for_all(policy):
    policy.write_text(SHARED)
    both = {("policies", i, "threshold"): FprThreshold(fpr=0.02) for i in (0, 1)}
    assert edit(policy, both).after == SHARED.replace("0.01", "0.02")
    with pytest.raises(PolicyError, match=r"policy\.yaml:3:.*policies\[0\]\.threshold.*alias"):
        edit(policy, {("policies", 0, "threshold"): FprThreshold(fpr=0.02)})
    assert policy.read_text() == SHARED


def test_a_value_that_comes_from_a_merge_is_refused(policy):
    policy.write_text(
        "version: 1\npolicies:\n"
        "  - &a {id: a, trait: evil, threshold: {fpr: 0.01}, action: block}\n"
        "  - {<<: *a, id: b}\n"
    )
    with pytest.raises(PolicyError, match=r"policies\[1\].*alias or a merge"):
        edit(policy, {("policies", 1, "threshold"): FprThreshold(fpr=0.02)})


def test_a_file_in_one_line_is_refused_where_a_line_would_have_to_be_added(policy, tmp_path):
    policy.write_text("{version: 1, vectors: demo, policies: []}\n")
    with pytest.raises(PolicyError, match=r"change it yourself: calibration: new\.json"):
        edit(policy, {}, tmp_path / "new.json")


@pytest.mark.parametrize("value", [1e-7, 0.00012345, 1.0, 123456.0, -0.5])
def test_numbers_are_written_so_that_yaml_reads_them_back(policy, value):
    edit(policy, {("policies", 1, "threshold"): RawThreshold(raw=value)}).write()
    assert load_policies(policy).policies[1].threshold == RawThreshold(raw=value)


@pytest.mark.parametrize(
    ("text", "added", "removed"),
    [
        ("  - id: a\n    mode: shadow  # yet\n", ["    mode: enforce  # yet"], ["    mode: shadow  # yet"]),
        ("  - id: a\n", ["    mode: enforce"], []),
        ("  -   trait: evil\n      id: a\n", ["      mode: enforce"], []),
    ],
)
def test_a_shadow_is_enforced_in_one_line(tmp_path, text, added, removed):
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\npolicies:\n{text}")
    lines = enforced(path, "a").diff().splitlines()[2:]
    assert [line[1:] for line in lines if line.startswith("+")] == added
    assert [line[1:] for line in lines if line.startswith("-")] == removed


def test_what_cannot_be_enforced_in_one_line_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\npolicies: [{id: a, trait: evil}]\n")
    with pytest.raises(PolicyError, match=r"policies\[0\]\.mode: enforce"):
        enforced(path, "a")
    with pytest.raises(PolicyError, match="no policy `b`"):
        enforced(path, "b")


def test_layers_are_put_behind_their_traits_or_replaced_and_nothing_else(policy):
    assert layered(policy, {"evil": 5, "humor": 3}).after == (
        FILE.replace("    trait: evil\n", "    trait: evil\n    layer: 5\n")
        .replace("{trait: evil, threshold: 2.0}", "{trait: evil, layer: 5, threshold: 2.0}")
        .replace("layer: 2}", "layer: 3}")
    )
    assert layered(policy, {"humor": 3}).after == FILE.replace("layer: 2}", "layer: 3}")
    assert layered(policy, {"apathy": 3}).changes == ()


def test_policies_on_replies_keep_their_layer(tmp_path):
    path = tmp_path / "p.yaml"
    policies = "  - {id: a, trait: evil, stage: response}\n  - {id: b, trait: evil, layer: auto}\n"
    text = f"version: 1\npolicies:\n{policies}"
    path.write_text(text)
    assert layered(path, {"evil": 4}).after == text.replace("layer: auto", "layer: 4")


def test_a_layer_that_an_alias_shares_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\npolicies:\n  - {id: a, trait: evil, layer: &l 2}\n  - {id: b, trait: humor, layer: *l}\n"
    )
    with pytest.raises(PolicyError, match="comes from an alias"):
        layered(path, {"evil": 4})
