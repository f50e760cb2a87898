"""Words of any script, and the English ones that may go."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.extraction.stop_words import STOP_WORDS, is_stop_word
from device_agent.extraction.tokens import LONGEST_WORD, tokens_of
from megace2_iot.datasets.words import MAX_WORDS, words_of


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It\N{RIGHT SINGLE QUOTATION MARK}s 'really' GOOD, isn't_it? 10/10", "it's really good isn't it 10 10"),
        ("这部电影很好。I like它!", "这 部 电 影 很 好 i like 它"),
        ("とても良い映画ラーメン", "と て も 良 い 映 画 ラ ー メ ン"),
        ("정말 좋은 영화", "정말 좋은 영화"),
        ("это Очень хорошо", "это очень хорошо"),
        ("यह फिल्म बहुत अच्छी है", "यह फिल्म बहुत अच्छी है"),
        ("كِتَابٌ جميل", "كِتَابٌ جميل"),
        ("cafe\u0301 naïve", "café naïve"),
        ("great😀👍🏽!! ❤️ 👩‍👩‍👧 🇩🇪🇫🇷", "great 😀 👍🏽 ❤ 👩‍👩‍👧 🇩🇪 🇫🇷"),
        ("#BestFilm_ever #好", "bestfilm ever 好"),
        ("see https://a.example/b?c=d#e,or www.a.example now", "see <url> <url> now"),
        ("写信a.b@c.example给@someone", "写 信 <email> 给 <user>"),
        ("", ""),
        ("... --- \ud800 \x00", ""),
    ],
)
def test_words_of_any_script(text: str, tokens: str) -> None:
    """Letters with their marks, characters alone where there are no spaces, emoji alone, names and links hidden."""
    assert tokens_of(text) == tokens.split()


def test_english_is_cut_as_the_data_sets_are(data_folder: Path) -> None:
    """What a model was trained on: all real sentences have the same words, but for links and addresses."""
    with (data_folder / "mosei_text.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    other = [text for text in texts if tokens_of(text)[:MAX_WORDS] != words_of(text)]
    assert len(texts) > 22_000
    assert all("@" in text or "www." in text or "http" in text for text in other)
    assert len(other) < 200


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_has_words(text: str) -> None:
    """Whatever a user types: bounded words without spaces, none of them empty."""
    for token in tokens_of(text):
        assert 1 <= len(token) <= LONGEST_WORD
        assert len(token.split()) == 1


@pytest.mark.parametrize("part", ["a", "a.", "a@", "a'", "www.", "a.b@", "😀\u200d", "\u0301", "@"])
def test_no_text_takes_long(part: str) -> None:
    """A pattern that backtracks would take hours on these."""
    assert len(tokens_of(part * 100_000)) <= 200_000


def test_what_turns_or_weighs_a_meaning_stays() -> None:
    """A sentence without its "not" says the opposite."""
    denying = "not no never none nothing nobody nor neither cannot can't don't isn't n't without hardly"
    assert not any(is_stop_word(word) for word in f"{denying} very but too only good".split())


def test_what_carries_grammar_goes() -> None:
    """Articles, pronouns, forms of to be and their short forms; all of them spelt as words are cut."""
    grammar = "the a is are i you it's they've of and that"
    assert all(is_stop_word(word) for word in grammar.split())
    assert 150 < len(STOP_WORDS) < 300
    assert all(tokens_of(word) == [word] for word in STOP_WORDS)
    assert not any("n't" in word for word in STOP_WORDS)
