"""A batch of every kind of answer, and what a recipe's terms are worth on it."""

import copy

import pytest
import torch

from eval.models import LanguageModel
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.objective import RecipeObjective, new_objective
from finetune_baselines.recipes import RECIPES
from finetune_baselines.training import TrainRows, TrainSettings, run_training

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


class _Runs:
    """What tests of whole runs share: rows, a model's state, a short run."""

    settings = TrainSettings(
        learning_rate=1e-3, epochs=2, batch_size=2, warmup_epochs=0.0, weight_decay=0.0, retain_per_forget=2
    )

    def rows(self, lm, examples):
        gold = encode_rows(lm, examples[:5], [row.answer for row in examples[:5]], reference=lm)
        return TrainRows(
            forget=[(row,) for row in gold],
            retain=encode_rows(lm, examples[5:], [row.answer for row in examples[5:]]),
        )

    def state(self, lm):
        return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}

    def put(self, lm, state):
        with torch.no_grad():
            for name, parameter in lm.model.named_parameters():
                parameter.copy_(state[name])

    def same(self, first, second, atol=0.0):
        return all(torch.allclose(first[name], second[name], rtol=0, atol=atol) for name in first)

    def npo(self, lm, rows, settings=settings, recipe="npo-rt", objective=None, **options):
        return run_training(lm, objective or RecipeObjective(RECIPES[recipe]), rows, settings, **options)


@pytest.fixture
def runs():
    return _Runs()
