"""What a model would say after each of its layers, and how early it settles: logit lens and tuned lens.

The public names load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.interpret.lens.diversity import self_bleu
    from guardrail.interpret.lens.picture import Picture
    from guardrail.interpret.lens.results import LensResult
    from guardrail.interpret.lens.study import LensStudy
    from guardrail.interpret.lens.tasks import TASKS, Item
    from guardrail.interpret.lens.training import Training, train
    from guardrail.interpret.lens.tuned import TunedLens
    from guardrail.interpret.lens.unembedding import Unembedding

__all__ = [
    "TASKS",
    "Item",
    "LensResult",
    "LensStudy",
    "Picture",
    "Training",
    "TunedLens",
    "Unembedding",
    "self_bleu",
    "train",
]

_PLACES = {
    "TASKS": "tasks",
    "Item": "tasks",
    "LensResult": "results",
    "LensStudy": "study",
    "Picture": "picture",
    "Training": "training",
    "TunedLens": "tuned",
    "Unembedding": "unembedding",
    "self_bleu": "diversity",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
