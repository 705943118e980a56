"""Which model the requests to a guard are held to: the one that was loaded, or accepted since."""

from __future__ import annotations

from torch import nn

from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.modes import with_modes
from guardrail.engines.transformers.watch import Watch
from guardrail.types import Fingerprint


class Identity:
    """The fingerprint of a model, and a watch over the model that it was taken from."""

    def __init__(self, local: LocalModel) -> None:
        self._local = local
        self.fingerprint, self._watch = local.fingerprint, Watch(local.inner, local.tokenizer)
        self._found: tuple[Fingerprint, Watch] | None = None
        self.modules: tuple[nn.Module, ...] = with_modes(local.inner)
        """Those that have to be in evaluation mode, as of the last look."""

    def change(self) -> str | None:
        """What has changed in the model, in words."""
        with self._local.turn.lock:
            change = self._watch.change()
            if change is not None:
                self.modules = with_modes(self._local.inner)
            return change

    def identify(self) -> Fingerprint:
        """The fingerprint of the model as it is now. Raises ModelError if it can no longer be guarded."""
        self._found = None
        with self._local.turn.lock:
            if self._watch.change() is None:
                return self.fingerprint
            self._local.identify()
            # a calibration that fits vouches for what is in the fingerprint, and for nothing else
            if not self._watch.beyond_fingerprints:
                self._found = self._local.fingerprint, Watch(self._local.inner, self._local.tokenizer)
            return self._local.fingerprint

    def accept(self) -> bool:
        """Hold requests to the model that was last identified; whether that is another than before."""
        if self._found is None:
            return False
        self.fingerprint, self._watch = self._found
        self.modules = with_modes(self._local.inner)
        return True
