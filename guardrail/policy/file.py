"""Turns YAML into a PolicySet and lists all problems at once. `loading` checks what needs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from guardrail.errors import Problem
from guardrail.files.problems import closest, keys_at, validation_problems
from guardrail.files.yaml import Document, KeyPath, copied
from guardrail.policy.model import PolicySet

VERSIONS = (1,)
OWN = "x-"
"""How keys begin that mean nothing here; their values are for anchors and merges."""
JsonSchema: TypeAlias = Mapping[str, object]
CONDITIONS = (["trait", "threshold"], ["trait", "conversation"], ["all_of"], ["any_of"])
"""The keys of which a policy has one set: when it fires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The valid part of a document.

    If there are problems, `policies` leaves out what is wrong, so that the rest can still be checked against
    a model; None means that nothing is left. `kept` holds the remaining policies' indices in the file.
    """

    policies: PolicySet | None
    problems: tuple[Problem, ...] = ()
    kept: tuple[int, ...] = ()
    invented: frozenset[KeyPath] = field(default=frozenset(), repr=False)
    renamed: Mapping[KeyPath, KeyPath] = field(default_factory=dict[KeyPath, KeyPath], repr=False)

    def in_file(self, problem: Problem) -> Problem | None:
        """A later problem under the file's own keys, or None if it concerns an invented value."""
        path = problem.path
        if len(path) > 1 and path[0] == "policies" and isinstance(path[1], int):
            path = ("policies", self.kept[path[1]], *path[2:])
        if any(path[:end] in self.invented for end in range(1, len(path) + 1)):
            return None
        return _under(problem, path, self.renamed)


def _under(problem: Problem, path: KeyPath, renamed: Mapping[KeyPath, KeyPath]) -> Problem:
    old = next((end for end in range(len(path), 0, -1) if path[:end] in renamed), 0)
    path = (*renamed[path[:old]], *path[old:]) if old else path
    return Problem(problem.message, path, problem.line, problem.column)


def draft(document: Document) -> Draft:
    """Validate a document, and repair it enough to look for more problems.

    Keys `x-...` at the top are the author's own, for anchors. Raises PolicyError for data that is too large.
    """
    data = copied(document.data, document.source)
    data = {key: value for key, value in data.items() if not str(key).startswith(OWN)}
    policies, problems = _validate(data)
    if policies and not document.problems:
        return Draft(policies=policies, kept=tuple(range(len(policies.policies))))
    unreadable = {problem.path for problem in document.problems}
    problems = [p for p in problems if p.path not in unreadable]
    repair = _Repair(data)
    repair.apply(problems)
    more = _validate(data)[1]
    known = {p.path[:end] for p in (*problems, *document.problems) for end in range(1, len(p.path) + 1)}
    fresh = [_under(p, p.path, repair.renamed) for p in more if p.path not in known]
    kept = repair.drop(more)
    return Draft(
        policies=_validate(data)[0],
        problems=(*document.problems, *problems, *fresh),
        kept=kept,
        invented=frozenset(repair.invented),
        renamed=repair.renamed,
    )


def _validate(data: Mapping[str, object]) -> tuple[PolicySet | None, list[Problem]]:
    try:
        return PolicySet.model_validate(data), []
    except ValidationError as error:
        found = validation_problems(error, data, PolicySet)
        return None, [_about_version(p, data) if p.path == ("version",) else p for p in found]


def _about_version(problem: Problem, data: Mapping[str, object]) -> Problem:
    supported = f"supported: {', '.join(map(str, VERSIONS))}"
    if "version" not in data:
        return Problem(f"is missing; {supported}", problem.path)
    unquoted = ", without quotes" if data["version"] in [str(one) for one in VERSIONS] else ""
    return Problem(f"{data['version']!r} is not supported; {supported}{unquoted}", problem.path)


class _Repair:
    """Makes data valid: renames misspelt keys, drops wrong ones and invents required ones."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.invented: set[KeyPath] = set()
        self.renamed: dict[KeyPath, KeyPath] = {}

    def apply(self, problems: list[Problem]) -> None:
        for problem in problems:
            self._remove(problem.path)
        self._invent((), self.data, "version", VERSIONS[0])
        self.data["allow_empty"] = True
        for i, entry in enumerate(self._policies()):
            if isinstance(entry, dict):
                self._complete(("policies", i), entry)

    def drop(self, problems: list[Problem]) -> tuple[int, ...]:
        """Drop the policies that are still wrong and return the indices of the rest."""
        wrong = {p.path[1] for p in problems if len(p.path) > 1 and p.path[0] == "policies"}
        entries = self._policies()
        kept = tuple(i for i in range(len(entries)) if i not in wrong)
        self.data["policies"] = [entries[i] for i in kept]
        return kept

    def _policies(self) -> list[Any]:
        entries = self.data.get("policies", [])
        return entries if isinstance(entries, list) else []

    def _remove(self, path: KeyPath) -> None:
        whole = path.index("threshold") + 1 if "threshold" in path else len(path)
        *parents, last = path[:whole] or (0,)
        holder = _at(self.data, parents)
        if isinstance(last, int) or last not in holder:
            return
        value = holder.pop(last)
        known = keys_at(PolicySet, tuple(parents))
        meant = None if last in known else closest(str(last), known)
        if meant is None or meant in holder:
            self.invented.add((*parents, last))
        else:
            holder[meant] = value
            self.renamed[(*parents, meant)] = path

    def _complete(self, path: KeyPath, entry: dict[str, Any]) -> None:
        self._invent(path, entry, "id", f"policy-{int(path[-1]) + 1}")
        self._invent(path, entry, "action", "block")
        if "trait" in entry and not {"all_of", "any_of", "conversation"} & set(entry):
            self._invent(path, entry, "threshold", 0.0)

    def _invent(self, path: KeyPath, entry: dict[str, Any], key: str, value: object) -> None:
        if key not in entry:
            entry[key] = value
            self.invented.add((*path, key))


def _at(holder: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        holder = holder[part]
    return holder


def schema(actions: Mapping[str, type[BaseModel]]) -> JsonSchema:
    """The JSON Schema of a policy file that may use these actions, given by name."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in dict.fromkeys((PolicySet, *actions.values()))
    ]
    refs, whole = models_json_schema(models, ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = whole["$defs"]
    root = definitions.pop(PolicySet.__name__)
    definitions["ActionUse"] = _action_schema({n: refs[m, "validation"] for n, m in actions.items()}, actions)
    definitions["Policy"]["oneOf"] = [{"required": keys} for keys in CONDITIONS]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "guardrail policy file"}
    own = {"patternProperties": {f"^{OWN}": {}}}
    return {**root, **head, **own, "$defs": definitions}


def _action_schema(
    refs: Mapping[str, JsonSchema], models: Mapping[str, type[BaseModel]]
) -> dict[str, object]:
    bare = [name for name in models if not _required(models[name])]
    forms: list[JsonSchema] = [{"enum": bare}] if bare else []
    for name, ref in refs.items():
        value = {"anyOf": [ref, {"type": "null"}]} if name in bare else ref
        forms.append({"type": "object", "properties": {name: value}, "required": [name]})
    closed = [{**form, "additionalProperties": False} if "type" in form else form for form in forms]
    return {
        "title": "Action",
        "description": "The name of an action, or its name with a configuration.",
        "oneOf": closed,
    }


def _required(model: type[BaseModel]) -> bool:
    return any(field.is_required() for field in model.model_fields.values())
