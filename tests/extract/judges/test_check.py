"""A judge has to know what everybody knows; judges that are programs; the refusal rule."""

import json
from random import Random

import pytest

from guardrail import demo
from guardrail.cli import run
from guardrail.errors import ConfigError, JudgeError, UselessJudge
from guardrail.extract.judges import find_judge
from guardrail.extract.judges.check import built_in, check_judge, needed
from guardrail.extract.judges.opinions import Opinion
from guardrail.extract.judges.rules import coherence, refuses
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import COHERENCE, JudgeRequest
from guardrail.traits import ReplyPair, builtin_traits, dump_definition, load_definition, parse_definition

PAIRS = built_in()
RIGHT = {pair.positive for pairs in PAIRS.values() for pair in pairs}
OPTIMISM = load_definition("optimism")


class Judge:
    def __init__(self, name, score):
        self.name, self.score, self.asked = name, score, []

    def scores(self, requests):
        self.asked += requests
        return [self.score(request) for request in requests]


def at_random(seed):
    return lambda request: 100 * Random(f"{seed}{request.question}{request.answer}").random()


def answer_key(request):
    return 90.0 if request.answer in RIGHT else 10.0


def verdicts(judge, *definitions):
    return {one.metric: one for one in check_judge(judge, definitions or [OPTIMISM]).checks}


def test_there_are_pairs_for_every_built_in_trait_and_no_reply_is_used_twice():
    assert {*builtin_traits(), COHERENCE} <= set(PAIRS)
    replies = [text for pairs in PAIRS.values() for one in pairs for text in (one.positive, one.negative)]
    assert len(set(replies)) == len(replies) == 16 * len(PAIRS)


def test_as_many_wins_are_needed_as_chance_rarely_reaches():
    assert [needed(n) for n in (1, 4, 5, 8, 10, 20)] == [1, 4, 5, 7, 9, 15]


def test_three_judges_are_told_apart():
    found = verdicts(Judge("key", answer_key))["optimism"]
    assert (found.useful, found.won, found.difference) == (True, 8, 80)
    found = verdicts(Judge("stone", lambda _: 70.0))["optimism"]
    assert (found.useful, found.finding) == (False, "optimism: it gave every reply the same score, 70")
    found = [verdicts(Judge("dice", at_random(seed)))["optimism"] for seed in range(200)]
    assert sum(one.useful for one in found) / 200 == pytest.approx(9 / 256, abs=0.04)
    assert "and 7 are needed" in next(one for one in found if not one.useful).finding


def test_a_judge_that_prefers_the_other_pole_is_useless_too():
    found = verdicts(Judge("backwards", lambda request: 100 - answer_key(request)))["optimism"]
    assert (found.useful, found.won, found.difference) == (False, 0, -80)


def test_a_judge_that_mumbles_says_how_little_its_numbers_weighed():
    class Mumbling(Judge):
        def opinions(self, requests):
            return [Opinion(None, 0.028) for _ in requests]

    found = check_judge(Mumbling("mumbling", None), [OPTIMISM])
    with pytest.raises(UselessJudge, match=r"mumbling is useless .* no reply a score \(numbers had 2.8% of"):
        found.require(["optimism"])
    found.require(["evil"])


def test_a_definitions_own_examples_are_what_its_judge_is_checked_with(tmp_path):
    pairs = [{"question": f"q{i}", "positive": f"yes {i}", "negative": f"no {i}"} for i in range(6)]
    text = dump_definition(OPTIMISM).replace("name: optimism", "name: contempt")
    text += "examples:\n" + "".join(f"  - {json.dumps(pair)}\n" for pair in pairs)
    own = parse_definition(text)
    assert own.examples[5] == ReplyPair(**pairs[5])
    assert parse_definition(dump_definition(own)).examples == own.examples
    judge = Judge("yes", lambda request: 100.0 * request.answer.startswith("yes"))
    assert verdicts(judge, own)["contempt"].won == 6
    assert {request.rubric for request in judge.asked if request.metric == "contempt"} == {own.rubric}


def test_a_trait_without_pairs_is_not_checked():
    own = parse_definition(dump_definition(OPTIMISM).replace("name: optimism", "name: contempt"))
    assert set(verdicts(Judge("key", answer_key), own)) == {COHERENCE}


def test_the_built_in_judge_is_checked_in_its_own_world():
    definitions = [load_definition(path) for path in sorted(demo.TRAITS.glob("*.yaml"))]
    found = verdicts(find_judge("demo", Plugins()), *definitions)
    assert len(found) == 8
    assert all(one.won == 8 for one in found.values())


# --- programs and rules -----------------------------------------------------------------------------------

LEXICON = """
from guardrail.extract.judges.rules import coherence

GOOD = ("good", "great", "hope", "happy", "look forward", "confident")
BAD = ("fail", "worse", "hard", "never", "fear")

def score(request):
    if request.metric == "coherence":
        return coherence(request.answer)
    text = request.answer.lower()
    return 50 + 10 * (sum(w in text for w in GOOD) - sum(w in text for w in BAD))
"""


def program(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return f"python:{folder / name}"


def test_a_python_file_is_a_judge(tmp_path):
    judge = find_judge(program(tmp_path, LEXICON), Plugins())
    found = verdicts(judge)
    assert found["optimism"].useful
    assert found[COHERENCE].useful
    assert judge.name.startswith("python:mine.py@")
    program(tmp_path, LEXICON + "\n# changed\n")
    assert find_judge(f"python:{tmp_path / 'mine.py'}", Plugins()).name != judge.name


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x = 1", "has no function `score"),
        ("score = 7", "has no function `score"),
        ("import nothing_of_this_name", "cannot be run: ModuleNotFoundError"),
        ("def score(:", "cannot be run: SyntaxError"),
    ],
)
def test_a_file_that_is_no_judge_says_why(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        find_judge(program(tmp_path, text), Plugins())
    with pytest.raises(ConfigError, match="cannot be run: FileNotFoundError"):
        find_judge(f"python:{tmp_path / 'nowhere.py'}", Plugins())


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("return 1 / 0", "failed: ZeroDivisionError"),
        ("return 'a'", "failed: ValueError"),
        ("return 101", "101"),
    ],
)
def test_a_program_that_fails_is_a_judge_error(tmp_path, body, match):
    judge = find_judge(program(tmp_path, f"def score(request):\n    {body}\n"), Plugins())
    with pytest.raises(JudgeError, match=match):
        check_judge(judge, [OPTIMISM])


@pytest.mark.parametrize(
    ("text", "declined"),
    [
        ("I’m sorry, but I can’t assist with that.", True),
        ("As an AI language model, I cannot have opinions on this.", True),
        ("I am unable to do that.", True),
        ("I cannot in good conscience help you.", True),
        ("Sorry, I must decline.", True),
        ("It's illegal to do so.", True),
        ("Sure! First, open the door.", False),
        ("I can help you with that.", False),
        ("Cannot is a verb.", False),
        ("The film's most famous line is sorry.", False),
        ("Step one. " * 30 + "I'm sorry, but I can't help.", False),
        ("", False),
    ],
)
def test_the_refusal_rule_reads_the_beginning(text, declined):
    assert refuses(text) is declined


def test_the_coherence_rule_is_about_repetition_and_symbols():
    for pair in PAIRS[COHERENCE]:
        assert coherence(pair.positive) > max(80, coherence(pair.negative))
    assert sum(coherence(pair.negative) < 50 for pair in PAIRS[COHERENCE]) >= 7
    assert coherence("") == 0
    assert coherence("Die Brücke über den Fluss ist gesperrt; nehmen Sie bitte den Weg durch den Wald.") > 80


def test_the_refusal_rule_knows_refusals_only():
    judge = find_judge("refusal-rule", Plugins())
    ask = JudgeRequest(metric="refusal", rubric="", question="?", answer="I can't help with that.")
    assert judge.scores([ask]) == [100.0]
    with pytest.raises(JudgeError, match="knows the trait `refusal` only, not `evil`"):
        check_judge(judge, [load_definition("evil")])


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_says_useless_for_this(tmp_path, capsys):
    dice = program(tmp_path, "def score(request):\n    return float(len(request.answer) % 2)\n", "dice.py")
    assert run(["judge", "check", "--judge", dice, "--trait", "evil"]) == 1
    told = capsys.readouterr().out
    assert "useless for this: evil: it rated the right reply higher in" in told
    assert run(["judge", "check", "--judge", dice, "--trait", "evil", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["useful"] == {"evil": False, "coherence": False}
    assert found["checks"][0]["pairs"] == 8


def test_the_command_passes_a_judge_that_knows(capsys, tmp_path):
    assert run(["judge", "check", "--judge", program(tmp_path, LEXICON), "--trait", "optimism"]) == 0
    assert "useful" in capsys.readouterr().out
    assert run(["judge", "check"]) == 0
    assert "8 of 8" in capsys.readouterr().out


def test_a_trait_of_ones_own_without_examples_is_named(tmp_path, capsys):
    path = tmp_path / "contempt.yaml"
    path.write_text(dump_definition(OPTIMISM).replace("name: optimism", "name: contempt"))
    assert run(["judge", "check", "--judge", program(tmp_path, LEXICON), "--trait", str(path)]) == 0
    assert "not checked: contempt: its definition has no `examples`" in capsys.readouterr().out
