# pyright: basic
"""Muon for the matrices, AdamW for embeddings and norms, with a state that saves as plain tensors.

Muon (Jordan et al. 2024): momentum, orthogonalised by five Newton-Schulz steps.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

MUON_RATE, MUON_MOMENTUM, DECAY = 0.02, 0.95, 0.05
ADAM_RATE, ADAM_BETAS, ADAM_EPS = 3e-3, (0.9, 0.98), 1e-8


class Optimizer:
    """Updates a model's parameters in place; `scale` is the schedule's share of the peak rates;
    Muon computes in `dtype`."""

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], dtype: torch.dtype = torch.float32
    ) -> None:
        self._dtype = dtype
        self._parameters = dict(parameters)
        self._matrices = [n for n, p in self._parameters.items() if p.ndim == 2 and "embed" not in n]
        self._others = [n for n in self._parameters if n not in self._matrices]
        self.state: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            kinds = ("momentum",) if name in self._matrices else ("first", "second")
            self.state |= {f"{name}.{kind}": torch.zeros_like(parameter) for kind in kinds}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a saved state."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @torch.no_grad()
    def step(self, number: int, scale: float) -> None:
        """One update, numbered from 1."""
        for names in self._by_shape().values():
            self._muon(names, scale)
        for name in self._others:
            self._adam(name, number, scale)
        for parameter in self._parameters.values():
            parameter.grad = None

    def _by_shape(self) -> dict[torch.Size, list[str]]:
        groups: dict[torch.Size, list[str]] = {}
        for name in self._matrices:
            groups.setdefault(self._parameters[name].shape, []).append(name)
        return groups

    def _muon(self, names: list[str], scale: float) -> None:
        directions = []
        for name in names:
            gradient, momentum = self._gradient(name), self.state[f"{name}.momentum"]
            momentum.lerp_(gradient, 1 - MUON_MOMENTUM)
            directions.append(gradient.lerp(momentum, MUON_MOMENTUM))
        rows, columns = directions[0].shape
        rate = MUON_RATE * scale * max(1.0, rows / columns) ** 0.5
        for name, update in zip(names, orthogonalise(torch.stack(directions), self._dtype), strict=True):
            self._parameters[name].mul_(1 - MUON_RATE * scale * DECAY).add_(update, alpha=-rate)

    def _adam(self, name: str, number: int, scale: float) -> None:
        gradient, (b1, b2) = self._gradient(name), ADAM_BETAS
        first, second = self.state[f"{name}.first"], self.state[f"{name}.second"]
        first.lerp_(gradient, 1 - b1)
        second.lerp_(gradient.square(), 1 - b2)
        size = (second / (1 - b2**number)).sqrt_().add_(ADAM_EPS)
        self._parameters[name].addcdiv_(first / (1 - b1**number), size, value=-ADAM_RATE * scale)

    def _gradient(self, name: str) -> Tensor:
        gradient = self._parameters[name].grad
        assert gradient is not None, name
        return gradient


def orthogonalise(batch: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """Brings the singular values of a batch of matrices near one; bfloat16 is precise enough for it."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = batch.shape[1] > batch.shape[2]
    x = batch.mT if tall else batch
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(batch.dtype)
