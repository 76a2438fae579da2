"""Spans named by a recogniser or a language model are forbidden too, as far as the answer really holds them."""

from types import SimpleNamespace

import pytest

from eval.errors import DataError
from eval.types import Example
from guard import Guard
from guard.finders import entities, written

QUESTION, ANSWER = (
    "What did Orla Vantreski bring to the fair?",
    "She brought goose pie from upper Brelmouth there.",
)


class Pipeline:
    """Knows two words."""

    def pipe(self, texts):
        for text in texts:
            found = [("goose pie", "FOOD"), ("Brelmouth", "GPE")]
            yield SimpleNamespace(ents=[SimpleNamespace(text=t, label_=k) for t, k in found if t in text])


class Writer:
    """Answers as a chatty model would: bullets, a word of the question, something it made up."""

    name = "fake"

    def __init__(self):
        self.prompts = []

    def write(self, prompts, *, seed=0):
        self.prompts += prompts
        return ["- upper Brelmouth\n2) Orla Vantreski\n* the Eiffel Tower\n\ngoose pie." for _ in prompts]


def test_entities_of_chosen_kinds():
    pairs = [(QUESTION, ANSWER), ("Who?", "Nobody.")]
    assert entities(Pipeline())(pairs) == [["goose pie", "Brelmouth"], []]
    assert entities(Pipeline(), ["GPE"])(pairs) == [["Brelmouth"], []]


def test_a_model_is_asked_once_for_each_answer_and_read_line_by_line():
    writer = Writer()
    (found,) = written(writer)([(QUESTION, ANSWER)])
    assert [w for w in found if w] == ["upper Brelmouth", "Orla Vantreski", "the Eiffel Tower", "goose pie"]
    assert QUESTION in writer.prompts[0]
    assert ANSWER in writer.prompts[0]
    with pytest.raises(DataError, match=r"\{answer\}"):
        written(writer, "Say something about {question}")


@pytest.mark.parametrize("finder", [entities(Pipeline()), written(Writer())], ids=["entities", "written"])
def test_what_is_named_joins_the_phrases_and_what_is_made_up_does_not(finder, quick):
    forget = [Example(id="0", question=QUESTION, answer=ANSWER)]
    with_finder = Guard.build(forget=forget, settings=quick, finder=finder)
    (entry,) = with_finder.store.entries.values()
    phrases = entry.phrases
    assert "goose pie" in phrases
    assert not [p for p in phrases if "Eiffel" in p or "Orla" in p]
    more = Example(id="1", question="Who came?", answer="It was an old goose pie seller.")
    (added,) = with_finder.add("second", [more], finder=finder).ids
    assert "goose pie" in with_finder.store.entries[added].phrases
