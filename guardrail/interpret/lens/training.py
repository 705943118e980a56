"""Trains a tuned lens on text that the model itself writes: its own distribution, and no data to bring.

Each layer starts from the ridge regression of the last layer's states on its own, and goes on by Adam on
KL(model's output || lens). Of translating nothing, the regression and the trained map, the one with the
lowest KL on held-out text is kept, so that a tuned lens never reads worse than the logit lens there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.engines.transformers.activations import Site
from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.extract.subject import Subject
from guardrail.interpret.lens.tuned import TunedLens
from guardrail.interpret.lens.unembedding import Unembedding

HELD_OUT = 5
"""Every fifth text is held out."""
STAGE = "tuned lens: layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a tuned lens is trained. texts: how many the model writes, of `tokens` tokens each.

    ridge: added to the diagonal of the regression, as a share of its mean. batch: tokens of one step.
    """

    texts: int = 160
    tokens: int = 64
    steps: int = 60
    batch: int = 64
    rate: float = 1e-3
    ridge: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.texts < HELD_OUT or self.tokens < 2:
            raise ConfigError(f"a tuned lens needs at least {HELD_OUT} texts of 2 tokens")


def train(
    subject: Subject,
    unembedding: Unembedding,
    settings: Training = Training(),
    *,
    rows: Sequence[Sequence[int]] | None = None,
    report: Report = silent,
) -> TunedLens:
    """A tuned lens for a model, from the ids of texts, or from texts that the model writes.

    Raises ConfigError for too few texts.
    """
    written = own_texts(subject, settings) if rows is None else [row for row in rows if len(row) > 1]
    if len(written) < HELD_OUT:
        raise ConfigError(f"a tuned lens needs at least {HELD_OUT} texts of two tokens or more")
    training = _states(subject, [row for i, row in enumerate(written) if i % HELD_OUT])
    held_out = _states(subject, written[::HELD_OUT])
    fitted: list[_Fitted] = []
    for layer in range(1, subject.layers):
        fitter = _Fitter(unembedding, training[layer], training[subject.layers], settings)
        fitted.append(fitter.best(held_out[layer], held_out[subject.layers]))
        report(STAGE, layer, subject.layers - 1)
    width = subject.d_model
    return TunedLens(
        torch.stack([one.map for one in fitted]) if fitted else torch.zeros(0, width, width),
        torch.stack([one.bias for one in fitted]) if fitted else torch.zeros(0, width),
        subject.fingerprint,
        tuple(one.before for one in fitted),
        tuple(one.after for one in fitted),
        tuple(one.source for one in fitted),
    )


def own_texts(subject: Subject, settings: Training) -> list[list[int]]:
    """Ids of texts that the model samples at temperature 1, from what its tokenizer begins texts with."""
    tokenizer, local = subject.tokenizer, subject.local
    start = tokenizer.bos_token_id
    first = [min(local.end_tokens, default=local.pad_token) if start is None else start]
    seeds = [settings.seed + i for i in range(settings.texts)]
    replies = subject.continued(
        [first] * settings.texts, seeds=seeds, max_new_tokens=settings.tokens, temperature=1.0
    )
    return [[*first, *reply.ids] for reply in replies if len(reply.ids) > 1]


def _states(subject: Subject, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """[tokens, d_model] for layers 0 to L: all tokens but each row's first, which models use as a sink."""
    sites = [Site(layer) for layer in range(subject.layers + 1)]
    found: list[list[Tensor]] = [[] for _ in sites]
    for batch in subject.batches([len(row) for row in rows]):
        ids, mask = subject.local.padded([rows[i] for i in batch], left=False)
        read = subject.activations.read(ids, mask, sites, "all")
        counted = mask.bool()
        counted[:, 0] = False
        for kept, site in zip(found, sites, strict=True):
            kept.append(read[site][counted.to(read[site].device)].float().cpu())
    return [torch.cat(parts) for parts in found]


@dataclass(frozen=True, slots=True)
class _Fitted:
    map: Tensor
    bias: Tensor
    before: float
    after: float
    source: str


@dataclass(frozen=True, slots=True)
class _Fitter:
    """The translator of one layer: states and those of the last layer, [tokens, d_model] each."""

    unembedding: Unembedding
    states: Tensor
    last: Tensor
    settings: Training

    def best(self, states: Tensor, last: Tensor) -> _Fitted:
        """The candidate with the lowest KL on held-out states."""
        width = states.shape[1]
        nothing = torch.zeros(width, width), torch.zeros(width)
        regressed = self.regressed()
        candidates = {"identity": nothing, "regression": regressed, "training": self.trained(*regressed)}
        with torch.no_grad():
            kl = {name: float(self.divergence(states, last, *one)) for name, one in candidates.items()}
        chosen = min(kl, key=lambda name: kl[name])
        return _Fitted(*candidates[chosen], kl["identity"], kl[chosen], chosen)

    def regressed(self) -> tuple[Tensor, Tensor]:
        """A, b that minimise |h + h A + b - h_L|^2 + ridge |A|^2."""
        states, wanted = self.states.double(), (self.last - self.states).double()
        middle, target = states.mean(0), wanted.mean(0)
        centred = states - middle
        gram = centred.T @ centred
        gram += torch.eye(len(gram)) * self.settings.ridge * gram.diagonal().mean()
        found = torch.linalg.solve(gram, centred.T @ (wanted - target))
        return found.float(), (target - middle @ found).float()

    def trained(self, map: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The map after Adam on the KL, with a rate that falls to 0."""
        map, bias = map.clone().requires_grad_(), bias.clone().requires_grad_()
        optimiser = torch.optim.Adam([map, bias], lr=self.settings.rate)
        draws = torch.Generator().manual_seed(self.settings.seed)
        with torch.enable_grad():
            for step in range(self.settings.steps):
                optimiser.param_groups[0]["lr"] = self.settings.rate * (1 - step / self.settings.steps)
                chosen = torch.randint(len(self.states), (self.settings.batch,), generator=draws)
                loss = self.divergence(self.states[chosen], self.last[chosen], map, bias)
                map.grad, bias.grad = torch.autograd.grad(loss, (map, bias))
                optimiser.step()
        return map.detach(), bias.detach()

    def divergence(self, states: Tensor, last: Tensor, map: Tensor, bias: Tensor) -> Tensor:
        """Mean KL(output || lens) in nats."""
        sums = [
            self._sum(here + here @ map + bias, there)
            for here, there in zip(states.split(256), last.split(256), strict=True)
        ]
        return torch.stack(sums).sum() / len(states)

    def _sum(self, translated: Tensor, last: Tensor) -> Tensor:
        with torch.no_grad():
            final = self.unembedding.logits(last).log_softmax(-1)
        logs = self.unembedding.logits(translated).log_softmax(-1)
        return (final.exp() * (final - logs)).sum(-1).sum()
