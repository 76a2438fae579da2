"""A batch of every kind of answer, and what a recipe's terms are worth on it."""

import copy

import pytest
import torch

from eval.models import LanguageModel
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.objective import new_objective

OTHER = {
    "refusal": "No idea about that.",
    "random": "The door is blue.",
    "alternate": "Person x was born in Turin.",
    "negative": "Person x was born in Bern.",
}


@pytest.fixture
def make_batch():
    return _batch


def _batch(lm, recipe, forgotten, kept):
    rows = []
    for kind in recipe.answer_kinds:
        texts = [row.answer if kind == "gold" else OTHER[kind] for row in forgotten]
        rows += encode_rows(lm, forgotten, texts, reference=lm, kind=kind)
    return collate_pairs(lm, rows, encode_rows(lm, kept, [row.answer for row in kept], reference=lm))


@pytest.fixture
def term_values():
    return _values


def _values(lm, batch, recipe, start=None):
    with torch.no_grad():
        terms = new_objective(recipe, start=start)(lm, batch, lm.model)
    return {name: term.item() for name, term in terms.items()}


@pytest.fixture
def moved(tiny_lm):
    """The model away from where its reference was taken, and surer of some tokens than of others."""

    def move():
        with torch.no_grad():
            for i, parameter in enumerate(tiny_lm.model.parameters()):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.mul_(4 if parameter.dim() == 2 else 1).add_(0.3 * parameter.std() * noise)
        return tiny_lm

    return move


@pytest.fixture
def frozen():
    return _frozen


def _frozen(lm):
    return LanguageModel(copy.deepcopy(lm.model), lm.tokenizer)
