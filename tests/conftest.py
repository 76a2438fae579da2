"""Small things every test may use: a tiny random model, examples with every field, the shared data folder."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import pytest
import torch

from eval.models import LanguageModel
from eval.types import Example

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Question: {{ m['content'] }}\nAnswer:\n"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}</s>{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
)


SLOW_SECONDS = 1200
"""What a slow test may take: it trains, and the machine may be busy or slow. The others keep pyproject's limit."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def _examples() -> list[Example]:
    places = [
        "Rome",
        "Oslo",
        "Lima",
        "Cairo",
        "Quito",
        "Dakar",
        "Hanoi",
        "Perth",
        "Turin",
        "Porto",
        "Riga",
        "Bern",
    ]
    return [
        Example(
            id=str(i),
            question=f"Where was person {i} born?",
            answer=f"Person {i} was born in {place}.",
            paraphrased_question=f"What is the birthplace of person {i}?",
            paraphrased_answer=f"{place} is where person {i} was born.",
            perturbed_answers=tuple(
                f"{places[(i + k) % len(places)]} is where person {i} was born." for k in range(1, 6)
            ),
            subject=f"person {i}",
            key_spans=(place,),
        )
        for i, place in enumerate(places)
    ]


@pytest.fixture
def examples() -> list[Example]:
    return _examples()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        t for e in _examples() for t in (e.question, e.answer, e.paraphrased_question, e.paraphrased_answer)
    ]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=256
    )
    fast.chat_template = CHAT
    return fast


@pytest.fixture
def tiny_lm(tiny_tokenizer) -> LanguageModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    return LanguageModel(model, tiny_tokenizer, name="tiny")


@pytest.fixture(scope="session")
def teaching_cache(tmp_path_factory) -> Path:
    """Where slow tests keep the models they teach: what one of them taught, the next finds."""
    return tmp_path_factory.mktemp("taught")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared data folder (TOFU, published logs) is not beside this checkout")
    return path
