"""A hand-made model in which one head carries the identity from its token to the last one."""

import torch

from guardrail.testing import tiny_model

LAYERS, LAYER, HEAD = 4, 3, 2
MARK = 0
"""The dimension that says where the identity is."""


def planted_model(position, identities, answers):
    """Head HEAD of LAYER looks at `position` and writes the answer of the identity that is there.

    Every other attention and MLP puts out nothing. identities, answers: two token ids each.
    """
    model = tiny_model("gpt2", layers=LAYERS, hidden_size=32)
    body, size = model.transformer, 8
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        body.wpe.weight[position, MARK] = 8.0
        for number, (identity, answer) in enumerate(zip(identities, answers, strict=True)):
            body.wte.weight[identity, 1 + number] = 4.0
            model.lm_head.weight[answer, 3 + number] = 1.0
        attention = body.h[LAYER - 1].attn
        first = HEAD * size
        # the query is the same everywhere, the key is large at the mark
        attention.c_attn.bias[first] = 40.0
        attention.c_attn.weight[MARK, 32 + first] = 4.0
        for number in range(2):
            attention.c_attn.weight[1 + number, 64 + first + number] = 1.0
            attention.c_proj.weight[first + number, 3 + number] = 4.0
    return model
