import inspect

import pytest

from guardrail import errors
from guardrail.errors import ConfigError, GuardrailError, PolicyError, Problem, RequestError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]


def depth(line):
    return len(line) - len(line.lstrip("│├└─ "))


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_in_the_tree_that_the_docstring_draws(error):
    lines = [line for line in errors.__doc__.splitlines() if error.__name__ in line]
    assert lines
    assert issubclass(error, GuardrailError)
    assert depth(lines[0]) == 4 * (len(error.__mro__) - len(GuardrailError.__mro__))


def test_configuration_and_request_errors_are_apart():
    assert not any(issubclass(c, ConfigError) and issubclass(c, RequestError) for c in CLASSES)


def test_a_problem_names_file_line_column_key_and_message():
    problem = Problem("is wrong", ("policies", 0, "action", "steer"), 3, 7)
    assert problem.key == "policies[0].action.steer"
    assert problem.describe("p.yaml") == "p.yaml:3:7: policies[0].action.steer: is wrong"


def test_a_problem_leaves_out_what_is_not_known():
    assert Problem("is empty").describe("p.yaml") == "p.yaml: is empty"
    assert Problem("is wrong", ("version",)).describe() == "policies: version: is wrong"


def test_a_policy_error_carries_every_problem():
    error = PolicyError([Problem("one"), Problem("two")], "p.yaml")
    assert [p.message for p in error.problems] == ["one", "two"]
    assert str(error) == "p.yaml: one\np.yaml: two"


def test_the_text_of_an_error_can_be_written_whatever_it_quotes():
    assert str(PolicyError([Problem("`\ud800` is wrong")], "p.yaml")) == r"p.yaml: `\ud800` is wrong"
