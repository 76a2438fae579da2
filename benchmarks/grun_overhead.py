"""What a GRUN edit costs: tokens through Hugging Face's generate, a training step beside LoRA's, parameters.

Models are random: their text means nothing, their cost is real. Everything compared alternates in one process; the
clock counts what the process computes, so other work on the machine does not enter.
``generation_overhead.py`` measures the same edit through our own greedy loop, beside the guard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from harness import interleaved, millions, random_llama, report

SHAPE = (12, 768, 32000)
"""Blocks, hidden size, vocabulary: a token costs more than 20 ms on one core."""
NEW_TOKENS, PROMPT_TOKENS, REPEATS = 24, 64, 5
BATCHES = (1, 8)
TRAIN_ROWS, TRAIN_TOKENS = 8, 96

SHAPES = {
    "2M (4 blocks of 192)": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "vocab_size": 2048,
    }
    | {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "1B (Llama 3.2)": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "vocab_size": 128256,
    }
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True},
    "8B (Llama 3.1)": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "vocab_size": 128256,
    }
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False},
}


def parameters() -> list[dict[str, Any]]:
    """Count an edit's parameters over the base's, on models without memory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from grun.config import PAPER_LAYERS, GrunConfig, resolve_layers
    from grun.model import fresh_edits

    rows = []
    for name, shape in SHAPES.items():
        with torch.device("meta"):
            total = sum(p.numel() for p in LlamaForCausalLM(LlamaConfig(**shape)).parameters())
        layers, _ = resolve_layers(PAPER_LAYERS, int(shape["num_hidden_layers"]))
        for gate in ("linear", "mlp"):
            config = GrunConfig(
                layers=layers, hidden_size=int(shape["hidden_size"]), blocks_path="model.layers", gate=gate
            )
            edits = fresh_edits(config, torch.Generator().manual_seed(0))
            count = sum(p.numel() for edit in edits.values() for p in edit.parameters())
            rows.append(
                {"what": "parameters", "model": name, "variant": f"{gate} gate, {len(layers)} blocks, rank 4"}
                | {"parameters": count, "of": total, "ratio": count / total}
            )
    return rows


def generation(lm: Any) -> list[dict[str, Any]]:
    """Time ``generate`` of the plain model, with edits through hooks, and with one through pyvene."""
    import torch

    from grun.intervenable import at, intervening
    from grun.model import new_edit
    from grun.stack import EditStack

    untouched = random_llama(*SHAPE)  # the same weights, without our hooks
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    layers = (0.3, 0.6, 0.9)
    edits = {
        "linear gate": new_edit(lm, layers=layers)[0],
        "mlp gate": new_edit(lm, layers=layers, gate="mlp")[0],
        "phrase gate, answer, shut": new_edit(lm, layers=layers, gate="phrase", positions="answer")[0],
        "phrase gate, answer, open": new_edit(lm, layers=layers, gate="phrase", positions="answer")[0],
        "linear gate, every token": new_edit(lm, layers=layers, positions="all")[0],
    }
    with torch.no_grad():
        for name, logit in (("shut", -20.0), ("open", 20.0)):
            first = edits[f"phrase gate, answer, {name}"]
            first.interventions[first.config.layers[0]].gate.out_bias.fill_(logit)
    stack = EditStack(lm)
    for i in range(10):
        stack.add(f"request {i}", new_edit(lm, layers=layers, seed=i)[0])
    edited = {**edits, "stack of 10, linear gates": stack}
    rows = []
    for size in BATCHES:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(10, lm.vocab_size, (size, PROMPT_TOKENS), generator=generator)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        views = {"plain": untouched.model} | {name: edit.huggingface() for name, edit in edited.items()}
        works: dict[str, Callable[[], object]] = {
            name: lambda view=view, inputs=inputs: view.generate(**inputs, **options)
            for name, view in views.items()
        }
        first = edits["linear gate"]
        with intervening(lm.model, first.config.blocks_path, first.interventions) as session, torch.no_grad():
            where = at(torch.full((size,), PROMPT_TOKENS - 1), len(first.config.layers))
            works["linear gate, through pyvene"] = lambda session=session, inputs=inputs, where=where: (
                session.generate(inputs, unit_locations=where, intervene_on_prompt=True, **options)
            )
            seconds = interleaved(works, repeats=REPEATS, clock=time.process_time)
        common = {"model": f"{millions(lm.model):.0f}M", "batch": size}
        rows += [
            {"what": "generation over plain", **common, "variant": name}
            | {"ms": 1000 * seconds[name] / NEW_TOKENS, "beside": 1000 * seconds["plain"] / NEW_TOKENS}
            | {"ratio": seconds[name] / seconds["plain"]}
            for name in list(works)[1:]
        ]
        ours, theirs = seconds["linear gate"], seconds["linear gate, through pyvene"]
        rows.append(
            {"what": "hooks over pyvene", **common, "variant": "linear gate"}
            | {"ms": 1000 * ours / NEW_TOKENS, "beside": 1000 * theirs / NEW_TOKENS, "ratio": ours / theirs}
        )
    return rows


def step(forward: Callable[[], Any], parameters: list[Any]) -> Callable[[], object]:
    """Return one training step: forward, backward, AdamW."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)

    def run() -> object:
        loss = forward()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return optimizer.step()

    return run


def training(lm: Any) -> list[dict[str, Any]]:
    """Time one step of GRUN (both paths) and of LoRA with our default shape, on the same batch."""
    import torch
    import torch.nn.functional as F

    from eval.types import Batch, Message
    from finetune_baselines.parametrization import parametrization
    from grun.model import new_edit

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(10, lm.vocab_size, (TRAIN_ROWS, TRAIN_TOKENS), generator=generator)
    end = TRAIN_TOKENS // 2
    batch = Batch(
        messages=((Message("user", ""),),) * TRAIN_ROWS,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        prompt_end=torch.full((TRAIN_ROWS,), end),
        labels=ids.masked_fill(torch.arange(TRAIN_TOKENS)[None] < end, -100),
    )
    edited, _ = new_edit(lm, layers=(0.3, 0.6, 0.9))
    lora = parametrization("lora").prepare(lm, seed=0)
    lora_parameters = [p for p in lora.model.parameters() if p.requires_grad]

    def grun_loss() -> Any:
        logits, gates = edited.answer_and_gate_logits(batch)
        return F.cross_entropy(logits, batch.targets) + F.softplus(gates).mean()

    rows = []
    for path in ("pyvene", "hooks"):
        with ExitStack() as stack:
            trainable = stack.enter_context(edited.training_session(through_pyvene=path == "pyvene"))
            seconds = interleaved(
                {
                    "lora": step(
                        lambda: F.cross_entropy(lora.answer_logits(batch), batch.targets), lora_parameters
                    ),
                    "grun": step(grun_loss, list(trainable.parameters())),
                },
                repeats=REPEATS,
                clock=time.process_time,
            )
        rows.append(
            {"what": "training step over LoRA's", "model": f"{millions(lm.model):.0f}M", "batch": TRAIN_ROWS}
            | {"variant": f"linear gate, through {path}"}
            | {"ms": 1000 * seconds["grun"], "beside": 1000 * seconds["lora"]}
            | {"parameters": edited.trainable_parameters, "of": sum(p.numel() for p in lora_parameters)}
            | {"ratio": seconds["grun"] / seconds["lora"]}
        )
    return rows


def main() -> None:
    lm = random_llama(*SHAPE)
    rows = [*generation(lm), *training(lm), *parameters()]
    report(
        "grun_overhead",
        rows,
        note=(
            "CPU ms of the process a token or a step, beside what the ratio is over; generate: "
            f"{PROMPT_TOKENS} prompt and {NEW_TOKENS} new tokens, greedy; training: {TRAIN_TOKENS} tokens a row, "
            "half of them answer; LoRA: our default shape"
        ),
    )


if __name__ == "__main__":
    main()
