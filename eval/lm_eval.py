"""General ability through lm-evaluation-harness: any model of ours as one of its models (extra ``lm-eval``).

Plain, fine-tuned, edited and guarded models are measured alike, because everything goes through `LanguageModel.score`
and `LanguageModel.generate`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eval.data.collate import MAX_DOCUMENT_TOKENS
from eval.data.documents import CHUNK_WORDS, chunks
from eval.errors import ConfigError
from eval.types import Example, Message

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["HarnessModel", "evaluate_tasks", "harness_model"]

DEFAULT_NEW_TOKENS = 256


class Request(Protocol):
    """What the harness asks; ``args`` depends on the kind of request."""

    @property
    def args(self) -> tuple[Any, ...]:
        """``(context, continuation)``, ``(text,)`` or ``(context, generation settings)``."""
        ...


def _example(context: str) -> Example:
    return Example(id="0", messages=(Message("verbatim", context),))


class HarnessModel:
    """The harness' three questions, answered by a `LanguageModel`; `harness_model` adds the harness' base class.

    Args:
        lm: Any model, edited or guarded ones included.
    """

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self.lm = lm

    @property
    def tokenizer_name(self) -> str:
        """Part of the harness' cache key."""
        return str(self.lm.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat by the model's own template, for ``--apply_chat_template``."""
        return self.lm.template.render([Message(turn["role"], turn["content"]) for turn in chat_history])

    def loglikelihood(self, requests: Sequence[Request], **_: Any) -> list[tuple[float, bool]]:
        """Return for each ``(context, continuation)`` its log-probability, nats, and whether it is the greedy one.

        Nothing is put between the two, and no end-of-sequence token is scored. Without a context the first token
        (the beginning-of-sequence token where there is one) stands for it.
        """
        pairs = [(str(request.args[0]), str(request.args[1])) for request in requests]
        scores = self.lm.score([_example(context) for context, _ in pairs], [text for _, text in pairs])
        return [(score.sum_logp, bool(score.hits.all())) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Request], **_: Any) -> list[float]:
        """Return the log-probability of each text, nats: piece by piece, each after the one before it.

        A piece takes well under half of what the model can read; every token but the text's first is counted.
        """
        examples: list[Example] = []
        answers: list[str] = []
        counts: list[int] = []
        for request in requests:
            before, count = "", 0
            for piece in chunks(str(request.args[0]), words=self._piece_words(str(request.args[0]))):
                text = f" {piece}" if before else piece
                examples.append(_example(before))
                answers.append(text)
                before, count = piece, count + 1
            counts.append(count)
        scores = iter(self.lm.score(examples, answers))
        return [sum(next(scores).sum_logp for _ in range(count)) for count in counts]

    def _piece_words(self, text: str) -> int:
        limit = min(MAX_DOCUMENT_TOKENS, int(self.lm.tokenizer.model_max_length))
        tokens = len(self.lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        return max(1, min(CHUNK_WORDS, int(0.35 * limit * len(text.split()) / max(1, tokens))))

    def generate_until(self, requests: Sequence[Request], **_: Any) -> list[str]:
        """Return each context's continuation, cut at the first of its ``until`` strings."""
        from eval.models.generation import GenerationOptions

        out = [""] * len(requests)
        groups: dict[GenerationOptions, list[int]] = {}
        for i, request in enumerate(requests):
            wanted = dict(request.args[1])
            options = GenerationOptions(
                max_new_tokens=int(wanted.get("max_gen_toks") or DEFAULT_NEW_TOKENS),
                do_sample=bool(wanted.get("do_sample", False)),
                temperature=float(wanted.get("temperature") or 1.0),
            )
            groups.setdefault(options, []).append(i)
        for options, places in groups.items():
            said = self.lm.generate([_example(str(requests[i].args[0])) for i in places], options)
            for i, generation in zip(places, said, strict=True):
                until = requests[i].args[1].get("until") or ()
                stops = [until] if isinstance(until, str) else until
                ends = [place for stop in stops if stop and (place := generation.text.find(stop)) >= 0]
                out[i] = generation.text[: min(ends)] if ends else generation.text
        return out


def _harness(part: str) -> Any:
    try:
        return importlib.import_module(part)
    except ImportError:
        raise ConfigError(
            "General ability is measured by lm-evaluation-harness, which is not installed: "
            "pip install 'unlearn-toolkit[lm-eval]'."
        ) from None


def harness_model(lm: LanguageModel) -> Any:
    """Return ``lm`` as a model of lm-evaluation-harness (an ``lm_eval.api.model.LM``).

    Raises:
        ConfigError: If the harness is not installed.
    """
    base = _harness("lm_eval.api.model").LM
    return type("UnlearnModel", (HarnessModel, base), {})(lm)


def evaluate_tasks(
    lm: LanguageModel, tasks: Sequence[str], *, num_fewshot: int | None = None, limit: int | None = None
) -> dict[str, float]:
    """Run tasks of the harness and return ``{"task/metric": value}``; group values as the harness weights them.

    Args:
        lm: The model.
        tasks: Names the harness knows, such as ``mmlu`` or ``hellaswag``.
        num_fewshot: Solved examples; ``None``: each task's own number.
        limit: Questions of each task at most.

    Raises:
        ConfigError: If the harness is not installed.
    """
    evaluator = _harness("lm_eval.evaluator")
    done = evaluator.simple_evaluate(
        model=harness_model(lm), tasks=list(tasks), num_fewshot=num_fewshot, limit=limit, log_samples=False
    )
    return {
        f"{task}/{metric.partition(',')[0]}": float(value)
        for task, values in done["results"].items()
        for metric, value in values.items()
        if isinstance(value, (int, float)) and "," in metric and "_stderr," not in metric
    }
