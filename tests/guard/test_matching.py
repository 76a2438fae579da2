import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import ConfigError
from guard.matching import Matcher, PhraseSet
from guard.normalise import plain
from guard.vocabulary import Vocabulary, vocabulary

PHRASES = ("orla vantreski", "brelmouth", "12 may 1961", "copper heron prize", "café")
TEXTS = [
    "Orla Vantreski was born in Brelmouth on 12 May 1961.",
    "She won the Copper Heron Prize in a café.",
    "the theology",
]


def _train(model, pre_tokenizer, decoder, trainer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    stored = json.loads(
        tokenizer.to_str()
    )  # byte pieces are ordinary pieces; the trainer can only add special ones
    stored["added_tokens"] = [t for t in stored["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(stored))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@pytest.fixture(
    scope="module",
    params=["byte-bpe", "sentencepiece", "byte-fallback", "unigram", "many-words", "wordpiece"],
)
def tokenizer(request):
    from tokenizers import decoders, models, pre_tokenizers, trainers

    special = ["<unk>", "</s>"]
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-é'"))
    if request.param == "byte-bpe":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        return _train(models.BPE(), pre_tokenizers.ByteLevel(False), decoders.ByteLevel(), trainer)
    if request.param == "byte-fallback":
        trainer = trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))],
            initial_alphabet=[*(c for c in letters if c.isascii()), "\u2581"],
            show_progress=False,
        )
        back = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        return _train(model, pre_tokenizers.Metaspace(prepend_scheme="never"), back, trainer)
    if request.param == "unigram":
        trainer = trainers.UnigramTrainer(
            vocab_size=120,
            special_tokens=special,
            unk_token="<unk>",
            initial_alphabet=letters,
            show_progress=False,
        )
        return _train(models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace(), trainer)
    if request.param == "many-words":  # merges cross spaces: one token may hold several words
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return _train(models.BPE(), whole, decoders.ByteLevel(), trainer)
    if request.param == "sentencepiece":
        trainer = trainers.BpeTrainer(
            vocab_size=150, special_tokens=special, initial_alphabet=letters, show_progress=False
        )
        return _train(
            models.BPE(unk_token="<unk>"), pre_tokenizers.Metaspace(), decoders.Metaspace(), trainer
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    model = models.WordPiece(unk_token="<unk>")
    return _train(model, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False), trainer)


@pytest.fixture(scope="module")
def matcher(tokenizer):
    return Matcher(PhraseSet(PHRASES), Vocabulary(tokenizer))


def banned_at(matcher, ids):
    return [i for i, token in enumerate(ids) if token in matcher.banned(ids[:i]).tolist()]


def split_at_random(tokenizer, text, cuts):
    """Token ids of the text cut into pieces that are tokenised apart: a tokenisation no model was trained on."""
    places = sorted({c % (len(text) + 1) for c in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    return [i for piece in pieces for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]


@settings(max_examples=60, deadline=None)
@given(
    phrase=st.sampled_from(PHRASES[:4]),
    case=st.sampled_from([str.lower, str.upper, str.title, lambda t: t]),
    gap=st.sampled_from([" ", "  ", "-", ", "]),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_every_tokenisation_of_a_phrase_meets_a_ban(matcher, tokenizer, phrase, case, gap, cuts):
    text = "He said " + case(phrase).replace(" ", gap)
    ids = split_at_random(tokenizer, text, cuts)
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if f" {phrase} " in f" {plain(decoded)} ":
        assert banned_at(matcher, ids), decoded


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(2, 140), max_size=30))
def test_what_passes_the_bans_never_holds_a_phrase(matcher, tokenizer, ids):
    kept = []
    for token in ids:
        if token not in matcher.banned(kept).tolist():
            kept.append(token)
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert not matcher.matches(text)


def test_longer_words_and_other_words_pass(matcher, tokenizer):
    for text in ("He met Orla Quill in the prize hall", "a heron of copper", "the theology of May"):
        assert banned_at(matcher, tokenizer(text, add_special_tokens=False)["input_ids"]) == []


def test_a_phrase_spelt_by_bytes_is_banned(tiny_tokenizer):
    matcher = Matcher(PhraseSet(("café", "ｂｒｅｌ")), vocabulary(tiny_tokenizer))
    for text in ("in a café", "ｂｒｅｌ"):
        assert banned_at(matcher, tiny_tokenizer(text)["input_ids"])


def test_a_number_is_banned_whole_but_its_first_digits_are_not(tiny_tokenizer):
    matcher = Matcher(PhraseSet(("1961",)), vocabulary(tiny_tokenizer))
    ids = tiny_tokenizer(" 1961")["input_ids"]
    assert banned_at(matcher, ids) == [len(ids) - 1]
    assert banned_at(matcher, tiny_tokenizer(" 1962")["input_ids"]) == []


def test_a_common_word_at_the_beginning_of_a_phrase_stays_allowed(tiny_tokenizer):
    matcher = Matcher(PhraseSet(("theology",)), vocabulary(tiny_tokenizer))
    ids = tiny_tokenizer("all the")["input_ids"]
    assert banned_at(matcher, ids) == []


def test_no_phrase_bans_nothing(tiny_tokenizer):
    assert Matcher(PhraseSet(()), vocabulary(tiny_tokenizer)).banned([5, 6]).size == 0


@pytest.mark.parametrize("before", ["", " ", "He said ", "(", "\n", "…"])
@pytest.mark.parametrize("word", ["Brelmouth", "BRELMOUTH", "brelmouth", "Brelmouth's", "Brelmouth."])
def test_every_variant_of_a_word_is_banned(matcher, tokenizer, before, word):
    ids = tokenizer(before + word, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if "brelmouth" in plain(text).split():
        assert banned_at(matcher, ids)


def test_a_phrase_spelt_backwards_is_banned_at_its_end(tiny_tokenizer):
    matcher = Matcher(PhraseSet(("brelmouth", "rome", "1961", "12 may 1961")), vocabulary(tiny_tokenizer))
    ids = tiny_tokenizer(" h-t-u-o-m-l-e-r-b")["input_ids"]
    assert banned_at(matcher, ids) == [len(ids) - 1]
    assert matcher.matches("It reads HTUOMLERB.")
    for other in (" emor", " 1691", " htuomle is"):
        assert banned_at(matcher, tiny_tokenizer(other)["input_ids"]) == []


def test_an_empty_phrase_is_refused():
    with pytest.raises(ConfigError, match="letter or digit"):
        PhraseSet(("…",))


def test_the_vocabulary_is_built_once(tiny_tokenizer):
    assert vocabulary(tiny_tokenizer) is vocabulary(tiny_tokenizer)


def test_phrases_do_not_show_in_a_representation():
    assert "brelmouth" not in repr(PhraseSet(("brelmouth",)))
