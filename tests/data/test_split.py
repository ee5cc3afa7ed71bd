"""The split keeps together what belongs together and holds out about the share asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.data.documents import RawDocument
from ourospec.data.split import Split, Survey, split, survey
from ourospec.errors import DataError


def look(documents):
    found = Survey()
    for document in documents:
        found.add(document)
    return found


def documents_of(texts, group=None):
    names = [f"text{number:03}" for number in range(len(texts))]
    return [
        RawDocument(n, group(i) if group else n, t) for i, (n, t) in enumerate(zip(names, texts, strict=True))
    ]


def sides_of(documents, fraction):
    chosen = split(look(documents), fraction)
    return {
        document.name: {side for side, _ in chosen.parts(index, document.text)}
        for index, document in enumerate(documents)
    }


def heldout_share(documents, fraction):
    chosen = split(look(documents), fraction)
    parts = [part for index, document in enumerate(documents) for part in chosen.parts(index, document.text)]
    assert "".join(text for _, text in parts) == "".join(document.text for document in documents)
    return sum(len(t) for side, t in parts if side == "heldout") / sum(len(t) for _, t in parts)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(8, 800), min_size=1, max_size=30), fraction=st.floats(0.02, 0.5))
def test_about_the_share_is_held_out_whatever_the_sizes(make_text, sizes, fraction):
    documents = documents_of([make_text(seed, size) for seed, size in enumerate(sizes)])
    share = heldout_share(documents, fraction)
    # Whole groups come to at least half the share; a cut misses by at most half of the one cut document.
    assert 0 < share <= max(1.05 * fraction, 0.75)
    assert share >= min(0.4 * fraction, 0.2)


def test_many_documents_come_near_the_share(make_text):
    documents = documents_of([make_text(seed) for seed in range(100)])
    assert heldout_share(documents, 0.1) == pytest.approx(0.1, abs=0.01)


def test_groups_and_near_duplicates_stay_on_one_side(make_text):
    texts = [make_text(seed) for seed in range(60)]
    texts += [text.upper() + "\nand one line more\n" for text in texts[:20]]
    documents = documents_of(texts, group=lambda index: f"group{index % 60 // 3}")
    sides = sides_of(documents, 0.2)
    assert {side for found in sides.values() for side in found} == {"train", "heldout"}
    for index in range(60):
        assert sides[f"text{index:03}"] == sides[f"text{index // 3 * 3:03}"]
    for index in range(20):
        assert sides[f"text{index:03}"] == sides[f"text{60 + index:03}"]
    assert split(look(documents), 0.2).near_duplicates == 20


def test_the_order_of_the_documents_does_not_matter(make_text):
    documents = documents_of([make_text(seed) for seed in range(50)])
    assert sides_of(documents, 0.1) == sides_of(documents[::-1], 0.1)


def test_a_single_document_is_cut_at_a_line(make_text):
    documents = documents_of([make_text(0, 4000)])
    chosen = split(look(documents), 0.1)
    (one, train), *others = chosen.parts(0, documents[0].text)
    assert {one} == {"train"}
    assert {side for side, _ in others} == {"heldout"}
    heldout = [text for _, text in others]
    assert train.endswith("\n")
    assert train + "".join(heldout) == documents[0].text
    assert len("".join(heldout)) / len(documents[0].text) == pytest.approx(0.1, abs=0.02)


def test_what_is_no_document_is_held_out_in_pieces(make_text, monkeypatch):
    monkeypatch.setattr("ourospec.data.split._HELDOUT_PIECE", 1000)
    monkeypatch.setattr("ourospec.data.split._LONG", 5000)
    cut = split(look(documents_of([make_text(0, 4000)])), 0.25).parts(0, make_text(0, 4000))
    assert len(cut) > 5
    whole, long = make_text(1, 400), make_text(2, 1600)
    chosen = Split(frozenset({0, 1}), None, 0.5)
    assert chosen.parts(0, whole) == [("heldout", whole)]
    pieces = chosen.parts(1, long)
    assert "".join(text for _, text in pieces) == long
    assert {side for side, _ in pieces} == {"heldout"}
    assert max(len(text) for _, text in pieces) <= 1000
    assert chosen.parts(2, long) == [("train", long)]


def test_two_documents_are_not_torn_in_halves(make_text):
    documents = documents_of([make_text(0, 4000), make_text(1, 2000)])
    assert heldout_share(documents, 0.05) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("text", ["ab", "a\n", "x" * 1000, "first\n" + "y" * 1000])
def test_a_cut_without_a_good_line_leaves_text_on_both_sides(text):
    (_, train), (_, heldout) = split(look(documents_of([text])), 0.25).parts(0, text)
    assert train + heldout == text
    assert train
    assert heldout


def test_nothing_but_near_duplicates_cannot_be_split(make_text):
    documents = documents_of([make_text(0)] * 3)
    with pytest.raises(DataError, match="All 3 documents of the corpus are near-duplicates") as caught:
        split(look(documents), 0.05)
    assert caught.value.remedy


def test_fingerprint_sees_names_groups_texts_and_order(make_text):
    documents = documents_of([make_text(seed) for seed in range(3)])
    changed = [
        documents[::-1],
        documents[:2],
        [documents[0]._replace(name="other"), *documents[1:]],
        [documents[0]._replace(group="other"), *documents[1:]],
        [documents[0]._replace(text="other"), *documents[1:]],
    ]
    assert look(documents).fingerprint == look(list(documents)).fingerprint
    assert len({look(d).fingerprint for d in [documents, *changed]}) == 6


class Texts:
    kind = "list"

    def __init__(self, *texts):
        self.texts = texts

    def stamp(self):
        return ""

    def describe(self):
        return "a list"

    def read(self, on_undecodable):
        return iter(documents_of(self.texts))


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]])
def test_an_empty_corpus(texts):
    with pytest.raises(DataError, match=r"The corpus \(a list\) is empty") as caught:
        survey(Texts(*texts), "refuse")
    assert "--data.source stdlib" in caught.value.remedy


def test_documents_without_text_are_left_out():
    assert survey(Texts("a", " ", "b"), "refuse").names == ["text000", "text002"]
