"""Flags that several commands share, and what they turn into."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from unlearn.config import BenchmarkConfig, EvaluateConfig, GenerateConfig, ModelConfig, build

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.report import Report
    from eval.types import Progress

__all__ = [
    "attach",
    "attach_options",
    "benchmark_options",
    "common_options",
    "load_model",
    "make_benchmark",
    "model_options",
    "print_report",
    "quiet_libraries",
    "resolve",
    "showing_progress",
]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=Any)
PATH = click.Path(path_type=Path)


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def benchmark_options(function: F) -> F:
    """Add ``--benchmark`` and where its data comes from."""
    return _all(
        click.option(
            "--benchmark", metavar="NAME", help="Such as world:forget05 (default), tofu:forget10, jsonl:FILE."
        ),
        click.option(
            "--data-dir", type=PATH, help="Local folder with the benchmark's files, instead of the hub."
        ),
        click.option("--retain-file", type=PATH, help="With jsonl: rows to keep."),
        click.option(
            "--holdout", type=PATH, help="Rows no model was taught: needed for membership inference."
        ),
        click.option("--max-retain", type=int, metavar="N", help="Teach and keep at most N retain rows."),
        click.option(
            "--benchmark-seed", type=int, metavar="N", help="Seed of a generated benchmark (default 0)."
        ),
    )(function)


def model_options(function: F) -> F:
    """Add ``--model`` and how it is loaded."""
    return _all(
        click.option(
            "--model",
            metavar="MODEL",
            help="A saved model folder, a hub name, or scratch[:tiny|small|base] (default): trained from nothing.",
        ),
        click.option("--revision", help="Revision of a hub model."),
        click.option(
            "--template",
            metavar="TEMPLATE",
            help=r"auto (default), chat, ou-llama3, qa, raw, or a format such as 'Question: {question}\nAnswer:\n'.",
        ),
        click.option("--device", help="auto (default: cuda, then mps, then cpu), cpu, cuda, cuda:N, mps."),
        click.option(
            "--device-map",
            help="Spread the model over several GPUs and the CPU: auto, balanced, ... (in place of --device).",
        ),
        click.option("--dtype", help="auto (default), float32, bfloat16, float16."),
        click.option("--quantization", help="int8 or nf4 (bitsandbytes)."),
        click.option("--attn-implementation", help="As in Hugging Face: sdpa, eager, flash_attention_2."),
        click.option(
            "--ou-compat",
            is_flag=True,
            default=None,
            help="Mask real eos tokens in prompts, as published logs did.",
        ),
    )(function)


def attach_options(function: F) -> F:
    """Add what can be put on a model."""
    return _all(
        click.option("--adapter", type=PATH, help="A PEFT adapter folder (changes weights)."),
        click.option("--grun", type=PATH, help="A GRUN folder (edits hidden states)."),
        click.option(
            "--any-base",
            is_flag=True,
            default=None,
            help="With --grun: attach the edit to a model that is not the one it was trained on, at your own risk.",
        ),
        click.option("--guard", type=PATH, help="A guard store (suppresses)."),
        click.option("--policy", help="With --guard: restrict (default), refuse or monitor."),
    )(function)


def common_options(function: F) -> F:
    """Add ``--config`` and ``--json``."""
    return _all(
        click.option("--config", type=PATH, help="YAML file with settings; flags win over it."),
        click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
        ),
    )(function)


def resolve(context: click.Context, kind: type[C]) -> C:
    """Build a command's configuration from its file and the flags that were really given."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    flags = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in context.params.items()
        if name in kind.model_fields and context.get_parameter_source(name) in given
    }
    return build(kind, context.params.get("config"), flags)


def quiet_libraries() -> None:
    """Keep library chatter off the terminal of a command (never called when we are used as a library)."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for library in ("sentence_transformers", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def make_benchmark(config: BenchmarkConfig) -> Benchmark:
    """Load the benchmark a configuration names."""
    from eval.data import load_benchmark

    return load_benchmark(
        config.benchmark,
        data_dir=config.data_dir,
        holdout=config.holdout,
        max_retain=config.max_retain,
        retain_file=config.retain_file,
        seed=config.benchmark_seed,
    )


def load_model(config: ModelConfig, name: str | None = None, *, adapter: Path | None = None) -> LanguageModel:
    """Load the model a configuration names (or ``name``, loaded alike).

    Under a launcher each process takes the GPU of its own number.
    """
    import os

    import torch

    from eval.models import load

    device, local_rank = config.device, os.environ.get("LOCAL_RANK")
    if local_rank is not None and device == "auto" and torch.cuda.is_available():
        device = f"cuda:{local_rank}"
    return load(
        name or config.model,
        revision=config.revision,
        dtype=config.dtype,
        device=device,
        device_map=config.device_map,
        quantization=config.quantization,
        adapter=adapter,
        attn_implementation=config.attn_implementation,
        template=config.template,
        ou_compat=config.ou_compat,
    )


def attach(lm: LanguageModel, config: EvaluateConfig | GenerateConfig) -> LanguageModel:
    """Put the edit and the filter that a configuration names on a model, in that order.

    Raises:
        ConfigError: If a policy is named without a guard, or any_base without an edit; it would be ignored.
    """
    from eval.errors import ConfigError

    if config.guard is None and config.policy != "restrict":
        raise ConfigError(
            f"--policy {config.policy} is a guard's; name its store with --guard, or leave it out."
        )
    if config.any_base and config.grun is None:
        raise ConfigError("--any-base is an edit's; name its folder with --grun, or leave it out.")
    if config.grun is not None:
        import grun

        folder = config.grun / "grun"
        lm = grun.attach(lm, folder if folder.is_dir() else config.grun, any_base=config.any_base)
    if config.guard is not None:
        import guard

        folder = config.guard / "guard"
        store = guard.Guard.load(folder if folder.is_dir() else config.guard, model=lm)
        lm = guard.GuardedModel(lm, store, policy=config.policy)
    return lm


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Show progress on stderr: bars on a terminal, one line a stage elsewhere; of several processes one speaks."""
    from eval.processes import is_main
    from unlearn.display import ProgressDisplay

    if not is_main():
        yield lambda what, done, total: None
        return
    with ProgressDisplay() as display:
        yield display


def print_report(report: Report, as_json: bool, where: Path) -> None:
    """Print a report on stdout: its JSON, or the table and where the page is."""
    if as_json:
        print_json(report.as_json())
        return
    from unlearn.display import print_results

    print_results(report)
    click.echo(f"\nPage: {where / 'report.html'}")


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")
