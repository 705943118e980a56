"""Layers that vLLM compiles are read and steered as those that it does not."""

import pytest
import torch
from guardrail_vllm.worker.compiled import NAME, look, looking
from guardrail_vllm.worker.guard import WorkerGuard
from torch import nn
from world import GREEDY, guarded, prompts

WIDTH = 4


class Layer(nn.Module):
    """As vLLM's: takes and returns hidden states and a residual."""

    def forward(self, hidden, residual):
        return 2 * hidden + 1, residual + hidden


class Model(nn.Module):
    """Two layers with looks behind them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        for number, layer in enumerate(self.layers, 1):
            layer.register_forward_hook(lambda *told, number=number: look(number, *told))

    def forward(self, hidden, residual):
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        return hidden + residual


class Doubling(WorkerGuard):
    """Keeps what it sees, and doubles it behind the first layer."""

    def __init__(self):
        self.seen = []

    def look(self, layer, output):
        hidden, residual = output
        self.seen.append((layer, float(hidden.sum()), float(residual.sum())))
        if layer == 1:
            hidden *= 2


def states():
    return torch.ones(3, WIDTH), torch.zeros(3, WIDTH)


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiled_code_looks_and_keeps_what_a_look_changes(backend):
    code, made, expected = torch.compile(Model(), fullgraph=True, backend=backend), Doubling(), Doubling()
    with torch.no_grad():
        with looking(expected):
            wanted = Model()(*states())
        with looking(made):
            code(*states())
            made.seen.clear()
            found = code(*states())
        assert torch.equal(found, wanted)
        assert made.seen == expected.seen
        assert [layer for layer, *_ in made.seen] == [1, 2]
        # vLLM's own passes
        code(*states())
        assert len(made.seen) == 2


def test_vllm_divides_compiled_code_at_every_look():
    from vllm.compilation.backends import split_graph

    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compile(Model(), fullgraph=True, backend=keep)(*states())
    divided, pieces = split_graph(graphs[0], [NAME])
    alone = [piece for piece in pieces if piece.is_splitting_graph]
    assert len(alone) == 2
    for piece in alone:
        nodes = getattr(divided, piece.submod_name).graph.nodes
        assert [str(node.target) for node in nodes if node.op == "call_function"] == ["guardrail.look"]


def done(reply):
    return reply.decision.action, reply.decision.fired, reply.outcome, reply.text, reply.steered_passes


def test_scores_decisions_and_replies_are_those_of_transformers(reference):
    asked = prompts(48)
    theirs = reference.chat_many(asked, **GREEDY)
    with guarded(enforce_eager=False) as guard:
        assert guard.engine.backend.llm.vllm_config.compilation_config.mode > 0
        ours = guard.chat_many(asked, **GREEDY)
    assert {reply.outcome for reply in ours} == {"answered", "blocked", "rephrased"}
    assert any(reply.decision.action == "steer" for reply in ours)
    for one, other in zip(ours, theirs, strict=True):
        found, wanted = ([score.score for score in reply.decision.scores] for reply in (one, other))
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3)
        assert done(one) == done(other)
