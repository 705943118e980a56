"""`python -m benchmarks.architectures`: every causal architecture of transformers, tiny, under the guard.

Each is built with random weights in a process of its own, which may take 40 seconds. One that the guard
accepts is then read in ways that its self-test does not use: four prompts of different lengths in one batch,
by `check` and by `generate`, against the hidden states of a copy that was never guarded. Accepted and wrong
is a failure; refused is not, if the reason names the model. `results/architectures.md` is the table.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.cases import ignore
from guardrail.bench.plans import PlanEvaluator
from guardrail.engines import Prompt
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.errors import ModelError
from guardrail.policy.plan import Plan
from guardrail.testing import hand_made_plan, tiny_tokenizer
from guardrail.types import Decision

OUT = Path(__file__).parent / "results" / "architectures.md"
LIMIT_S = 40.0
TOLERANCE = 1e-3
LAYERS, WIDTH, VOCABULARY, LONGEST = 3, 32, 262, 128
LENGTHS = (11, 4, 7, 2)
"""Tokens of the prompts."""
SIZES: Mapping[str, object] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embedding_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner"), 2 * WIDTH
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"), WIDTH),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions"), LONGEST
    ),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_vocab"), VOCABULARY),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    "rotary_dim": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}
Verdict: TypeAlias = Literal["right", "refused", "wrong", "not built"]


@dataclass(frozen=True)
class Row:
    """What became of one architecture."""

    kind: str
    model: str
    verdict: Verdict
    note: str


class Keeping(PlanEvaluator):
    """Decides by the plan, and keeps what was read."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.kept: dict[int, float] = {}

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """As the plan decides."""
        self.kept[row] = float(readings[0])
        return super().decide(row, readings)


@torch.no_grad()
def tiny(kind: str) -> Any:
    """A model of this architecture with random weights, one that runs if there is one.

    Raises what the last attempt raised, if none can be built.
    """
    built: list[Any] = []
    problem: Exception | None = None
    for make in (shrunk, filled, from_sizes):
        try:
            torch.manual_seed(0)
            built.append(AutoModelForCausalLM.from_config(make(kind), dtype=torch.float32).eval())
            built[-1](torch.tensor(prompts()[:1]))
        except Exception as error:
            problem = error
        else:
            return built[-1]
    if not built:
        raise problem or RuntimeError(kind)
    return built[0]


def shrunk(kind: str) -> Any:
    """The default configuration, and those inside it, with our sizes where it gives any."""
    config = CONFIG_MAPPING[kind]()
    shrink(config)
    return config


def filled(kind: str) -> Any:
    """With our sizes also where the default configuration leaves them open."""
    config = CONFIG_MAPPING[kind]()
    shrink(config, open_too=True)
    return config


def from_sizes(kind: str) -> Any:
    """A configuration that is made of our sizes, and works out the rest by itself."""
    known = vars(CONFIG_MAPPING[kind]())
    config = CONFIG_MAPPING[kind](**{name: size for name, size in SIZES.items() if name in known})
    config.is_encoder_decoder = False
    return config


def shrink(config: Any, open_too: bool = False) -> None:
    """Put our sizes into a configuration and those inside it."""
    for part in [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]:
        shrink(part, open_too)
    for name, size in SIZES.items():
        # some are properties, or differ from layer to layer
        with suppress(Exception):
            now = getattr(config, name)
            if type(now) is type(size) or (now is None and open_too):
                setattr(config, name, size)
    for name in ("layer_types", "mlp_layer_types"):
        if (types := getattr(config, name, None)) and len(types) > LAYERS:
            setattr(config, name, list(types[-LAYERS:]))
    config.is_encoder_decoder = False


def prompts() -> list[list[int]]:
    """Token ids that are no special tokens."""
    source = torch.Generator().manual_seed(1)
    return [torch.randint(10, VOCABULARY, (length,), generator=source).tolist() for length in LENGTHS]


@torch.no_grad()
def expected(bare: Any, plan: Plan) -> list[float]:
    """Each prompt's projection at the plan's layer, from the bare model's hidden states, alone."""
    probe = plan.probes[0]
    found: list[float] = []
    for ids in prompts():
        states: Tensor = bare(torch.tensor([ids]), output_hidden_states=True).hidden_states[probe.layer]
        found.append(float(states[0, -1].float() @ torch.from_numpy(probe.weights)) + probe.offset)
    return found


def read(model: Any, plan: Plan) -> list[dict[int, float]]:
    """The projections that a guard reads by `check` and by `generate`."""
    engine = TransformersEngine(model, tiny_tokenizer())
    checking, generating = Keeping(plan), Keeping(plan)
    batch = [Prompt(tuple(ids)) for ids in prompts()]
    engine.check(batch, plan, checking, ignore)
    ids, mask = engine.batch(batch)
    arguments = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 2, "do_sample": False}
    engine.generate(plan, generating, ignore, arguments)
    engine.close()
    return [checking.kept, generating.kept]


def judged(kind: str) -> tuple[str, Verdict, str]:
    """(class, verdict, reason) of one architecture."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    name = model_class if isinstance(model_class, str) else model_class[0]
    try:
        model = tiny(kind)
    except Exception as error:
        return name, "not built", f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    name, bare, plan = (
        type(model).__name__,
        copy.deepcopy(model),
        hand_made_plan(layer=LAYERS - 1, d_model=WIDTH),
    )
    try:
        found = read(model, plan)
    except ModelError as error:
        return name, "refused" if name in str(error) else "wrong", str(error).removeprefix(name).strip(" :")
    wanted = expected(bare, plan)
    scale = max(map(abs, wanted))
    worst = max(abs(one[row] - value) / scale for one in found for row, value in enumerate(wanted))
    return name, "right" if worst < TOLERANCE else "wrong", f"largest difference {worst:.0e}"


def _answer(kind: str, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        pipe.send(judged(kind))
    except BaseException as error:
        pipe.send(("", "wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"))


def tried(kind: str) -> Row:
    """One architecture, in a process that may crash or hang."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(kind, there), daemon=True)
    process.start()
    there.close()
    try:
        answer = here.recv() if here.poll(LIMIT_S) else ("", "not built", f"more than {LIMIT_S:.0f} s")
    except EOFError:
        answer = ("", "not built", "the process died")
    process.kill()
    process.join()
    return Row(kind, *answer)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    counts = Counter(row.verdict for row in rows)
    lines = [
        "# Architectures",
        "",
        f"All {len(rows)} of `MODEL_FOR_CAUSAL_LM_MAPPING`, by `python -m benchmarks.architectures`: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        + ".",
        "",
        "right: accepted, and `check` and `generate` read what the bare model computes. refused: at load, by",
        "name. wrong: accepted and read wrongly, or refused without one. not built: no tiny form was found.",
        "",
        "| architecture | class | result | note |",
        "|---|---|---|---|",
        *(f"| {r.kind} | {r.model} | {r.verdict} | {r.note.replace('|', '/')[:160]} |" for r in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code 0, or 1 if an architecture is accepted and read wrongly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="only these; writes no table")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    rows: list[Row] = []
    for kind in chosen.kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        rows.append(tried(kind))
        print(*vars(rows[-1]).values(), sep="  ", flush=True)
    if not chosen.kinds:
        chosen.out.write_text(table(rows))
    return int(any(row.verdict == "wrong" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
