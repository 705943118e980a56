"""Policy files read and written without a model."""

from io import StringIO

from ruamel.yaml import YAML

from guardrail.files.yaml import parse_document, read_document
from guardrail.policy.file import draft


def load_policies(path):
    """Read a policy file without checking it against a model. Raises PolicyError with all problems."""
    return _complete(read_document(path))


def parse_policies(text, source="policies"):
    """Read policies from YAML text. Raises PolicyError with all problems."""
    return _complete(parse_document(text, source))


def _complete(document):
    found = draft(document)
    if found.problems or found.policies is None:
        raise document.error(list(found.problems))
    return found.policies


def dump_policies(policies):
    """YAML text that reads back as the same policies; defaults are left out."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(policies.model_dump(mode="json", exclude_defaults=True), text)
    return text.getvalue()
