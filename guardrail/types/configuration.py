"""How a model is run: what a fingerprint leaves out on purpose, and what may move a score all the same."""

from __future__ import annotations

from dataclasses import dataclass, fields

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way of running a model. Two that are equal are taken to give the same scores up to rounding.

    `engine` is its name (`transformers`, `vllm`), `device` a kind (`cpu`, `cuda`), `chat_template` a hash, as
    in a fingerprint. `versions` are `name 1.2.3`, without what follows a plus sign: how a build was made.
    """

    engine: str
    dtype: str = UNKNOWN
    quantisation: str = "none"
    attention: str = UNKNOWN
    device: str = UNKNOWN
    chat_template: str = ""
    versions: tuple[str, ...] = ()

    def differences(self, now: Configuration) -> tuple[str, ...]:
        """What differs, in words: `dtype float32, now bfloat16`."""
        names = [one.name for one in fields(self) if getattr(self, one.name) != getattr(now, one.name)]
        return tuple(
            f"{_word(name)} {_text(getattr(self, name))}, now {_text(getattr(now, name))}" for name in names
        )

    def __str__(self) -> str:
        """On one line, for people."""
        how = [self.engine, self.dtype, self.device, f"{self.attention} attention"]
        if self.quantisation != "none":
            how.append(self.quantisation)
        return ", ".join([*how, *self.versions])


def _word(name: str) -> str:
    return name.replace("_", " ")


def _text(value: str | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return " + ".join(value) or "none"
    # hashes are long; their beginning tells two apart
    return value[:12] if len(value) == 32 else value or "none"
