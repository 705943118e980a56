"""Batches on Ray workers give what they give here, and a killed worker loses nothing. Needs ray."""

import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from screening import rows, screener, write

from guardrail.cli import run
from guardrail.errors import ConfigError, GuardrailError
from guardrail.extract.jobs import Job, Pooling
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message

pytest.importorskip("ray")
from guardrail.extract.ray_workers import RayRunner

TESTS = Path(__file__).parents[1]
ROWS = 4
TEXTS = [f"{'word ' * (i % 7)}{i}?" for i in range(30)]


def here():
    return Subject(tiny_model(), tiny_tokenizer(), rows=ROWS)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    import ray

    # more than the machine has, so that commands find room beside this runner
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}}
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    found = RayRunner(here, 2)
    yield found
    found.close()
    ray.shutdown()


@pytest.fixture
def spread(runner):
    subject = here()
    subject.runner = runner
    return subject


def prompts():
    return [[Message("user", text)] for text in TEXTS]


def test_replies_are_the_same_token_for_token(spread):
    options = {"seeds": range(len(TEXTS)), "max_new_tokens": 8, "temperature": 1.0, "top_p": 0.9}
    assert spread.replies(prompts(), **options) == here().replies(prompts(), **options)


def test_steered_replies_are_the_same_too(spread):
    steering = [tiny.steering("add", (2, 3))]
    options = {"seeds": range(6), "max_new_tokens": 8, "temperature": 0.0, "steering": steering}
    found = spread.replies(prompts()[:6], **options)
    assert found == here().replies(prompts()[:6], **options)
    assert found != here().replies(prompts()[:6], **options | {"steering": []})


def test_states_are_the_same_bit_for_bit(spread):
    assert np.array_equal(spread.prompt_states(prompts()), here().prompt_states(prompts()))


@dataclass(frozen=True)
class Deadly:
    """Kills the worker that computes it, the first time."""

    job: Job
    mark: Path

    def run(self, subject):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.job.run(subject)


def test_a_killed_worker_loses_nothing(runner, tmp_path):
    plain = [Pooling(rows=[[1, 2, 3, i]], runs=[[((0, 4),)]]) for i in range(12)]
    deadly = [Deadly(job, tmp_path / "mark") if i == 5 else job for i, job in enumerate(plain)]
    found = list(runner.map(deadly))
    assert (tmp_path / "mark").exists()
    expected = [job.run(here()) for job in plain]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@dataclass(frozen=True)
class Broken:
    def run(self, subject):
        raise ConfigError("of its own")


def test_an_error_in_a_worker_is_that_error(runner):
    with pytest.raises(GuardrailError, match="of its own"):
        list(runner.map([Broken()]))


def test_more_workers_than_the_cluster_has_are_refused(runner):
    with pytest.raises(ConfigError, match="--workers 1000: the Ray cluster has"):
        RayRunner(partial(here), 1000)


def extracted(folder, *more):
    trait = ["--trait", "evil", "--questions", "5", "--samples", "1", "--max-new-tokens", "24"]
    files = ["--out", str(folder / "v.safetensors"), "--work", str(folder / "work")]
    words = ["vectors", "extract", "--model", "demo", "--judge", "demo", *trait, *files, "--batch", "8"]
    return run([*words, "--min-pairs", "2", *more])


def test_an_extraction_has_the_same_replies_scores_and_states(runner, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    codes = []
    for name, more in (("local", ()), ("ray", ("--runner", "ray", "--workers", "2"))):
        (tmp_path / name).mkdir()
        codes.append(extracted(tmp_path / name, *more))
    assert codes[0] == codes[1] != 2
    local, ray = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("local", "ray")
    )
    kept = [path for path in local if path.name not in ("lock", "judge-cache.sqlite")]
    assert any(path.name == "rollouts.jsonl" for path in kept)
    assert all(local[path] == ray[path] for path in kept)


def screened(folder, *more):
    files = ["--out", str(folder / "out"), "--html", str(folder / "report.html")]
    options = ["--max-new-tokens", "8", "--batch", "4", "--clean", str(folder.parent / "clean.jsonl")]
    return run(["data", "screen", str(folder.parent / "train.jsonl"), *files, *options, "--json", *more])


def test_a_screening_has_the_same_replies_scores_and_files(runner, tmp_path, capsys):
    for name, count in (("train", 40), ("clean", 30)):
        write(tmp_path / f"{name}.jsonl", [*rows(count, count), "{", {"prompt": "no reply"}])
    answers = []
    for name, more in (("local", ()), ("ray", ("--runner", "ray", "--workers", "2"))):
        (tmp_path / name).mkdir()
        assert screened(tmp_path / name, *more) == 0
        answers.append(json.loads(capsys.readouterr().out)["data"][0])
    local, ray = ({**one, "cost": one["cost"] | {"seconds": 0}, "files": []} for one in answers)
    assert local == ray
    assert local["rows"] == {"measured": 40, "set_aside": {"broken line": 1, "no reply": 1}}
    for file in ("scores.jsonl", "kept.jsonl", "rejected.jsonl", "set-aside.jsonl"):
        assert (
            len({(tmp_path / name / "out" / "train" / file).read_bytes() for name in ("local", "ray")}) == 1
        )


def test_a_worker_that_is_killed_while_it_screens_loses_nothing(runner, tmp_path):
    spread = here()
    mark = tmp_path / "mark"
    spread.runner = Deadlier(runner, mark)
    found = []
    for name, subject in (("local", here()), ("ray", spread)):
        data = write(tmp_path / "a.jsonl", rows(30))
        found.append(screener(tmp_path / name, subject).screen(data))
    assert mark.exists()
    assert found[0].numbers == found[1].numbers
    assert np.array_equal(found[0].differences(), found[1].differences())


@dataclass(frozen=True)
class Deadlier:
    """A runner whose first job kills its worker."""

    runner: RayRunner
    mark: Path

    @property
    def width(self):
        return self.runner.width

    def map(self, jobs):
        return self.runner.map([Deadly(job, self.mark) for job in jobs])


def test_an_evaluation_has_the_same_numbers(runner, tmp_path, capsys):
    rows = [{"prompt": text, "labels": {"evil": i % 2}} for i, text in enumerate(TEXTS)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = []
    for more in ((), ("--runner", "ray")):
        assert run(["evaluate", "--data", str(tmp_path / "data.jsonl"), "--json", *more]) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert answers[0] == answers[1]
