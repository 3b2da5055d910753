"""The ledger: who wrote a token is read, never computed, and nothing that is in changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlace.rollout.ledger import Ledger, Source, Span

ids = st.lists(st.integers(0, 150_000), min_size=1, max_size=12)
logprob = st.floats(-40, 0, width=32)


@st.composite
def policy_spans(draw: st.DrawFn) -> Span:
    tokens = draw(ids)
    some = st.lists(logprob, min_size=len(tokens), max_size=len(tokens))
    logprobs = draw(st.none() | some)
    raw = None if logprobs is None else draw(st.none() | some)
    version = draw(st.none() | st.integers(0, 9))
    weight = draw(st.sampled_from([0.0, 0.25, 1.0]))
    return Span.policy(tokens, logprobs=logprobs, raw_logprobs=raw, version=version, weight=weight)


others = st.sampled_from([Source.PROMPT, Source.TOOL, Source.HOST])
spans = policy_spans() | st.builds(Span.given, others, ids)
ledgers = st.lists(spans, max_size=12).map(Ledger)


@given(ledgers)
def test_only_policy_tokens_can_carry_loss(ledger: Ledger) -> None:
    written_by_policy = np.array([source is Source.POLICY for source in ledger.sources], bool)
    assert np.array_equal(ledger.response_mask, written_by_policy)
    assert not ledger.loss_weights[~written_by_policy].any()
    assert np.isnan(ledger.logprobs[~written_by_policy]).all()


@pytest.mark.parametrize("source", [Source.PROMPT, Source.TOOL, Source.HOST])
@pytest.mark.parametrize(
    "label", [{"weight": 1.0}, {"logprobs": np.array([-1], np.float32)}, {"version": 0}]
)
def test_no_other_source_can_be_given_what_belongs_to_the_policy(
    source: Source, label: dict[str, object]
) -> None:
    empty: dict[str, object] = {"logprobs": None, "raw_logprobs": None, "version": None}
    with pytest.raises(ValueError, match="only policy tokens"):
        Span(source, np.array([1], np.int32), **{**empty, "weight": 0.0, **label})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "logprobs"),
    [([], None), ([-1], None), ([1, 2], [-0.5]), ([1], [float("nan")]), ([1], [0.5])],
)
def test_a_span_that_does_not_fit_together_is_refused(
    tokens: list[int], logprobs: list[float] | None
) -> None:
    with pytest.raises(ValueError):
        Span.policy(tokens, logprobs=logprobs)


@given(st.lists(spans, max_size=8), st.lists(spans, max_size=4), st.lists(spans, max_size=4))
def test_a_fork_shares_its_parents_spans_and_never_changes_them(
    common: list[Span], mine: list[Span], yours: list[Span]
) -> None:
    parent = Ledger(common)
    child = parent.fork()
    before = parent.ids.tolist()
    for span in yours:
        child.append(span)
    assert parent.ids.tolist() == before
    for span in mine:
        parent.append(span)
    assert child == Ledger([*common, *yours])
    assert parent == Ledger([*common, *mine])
    assert all(a is b for a, b in zip(parent, common, strict=False))
    assert all(a is b for a, b in zip(child, common, strict=False))


@given(ledgers)
def test_the_views_are_the_spans_laid_end_to_end(ledger: Ledger) -> None:
    assert ledger.ids.tolist() == [id for span in ledger for id in span.ids.tolist()]
    views = [ledger.response_mask, ledger.loss_weights, ledger.logprobs, ledger.versions]
    assert [len(view) for view in [*views, ledger.raw_logprobs]] == [len(ledger)] * 5
    weights = [w for span in ledger for w in [span.weight] * len(span)]
    assert ledger.loss_weights.tolist() == np.array(weights, np.float32).tolist()


@given(ledgers)
def test_a_round_trip_through_plain_data_loses_nothing(ledger: Ledger) -> None:
    assert Ledger.from_json(ledger.to_json()) == ledger


def test_what_was_handed_out_can_not_be_written_to() -> None:
    span = Span.policy([1, 2], logprobs=[-1, -2])
    ledger = Ledger([span])
    for array in (span.ids, span.logprobs, ledger.ids):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    view = ledger.ids
    for _ in range(500):  # the buffer grows and moves; the old view stays as it was
        ledger.append(Span.given(Source.TOOL, [9]))
    assert view.tolist() == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        {"source": "tool", "ids": [1], "weight": 1.0},
        {"source": "tool", "ids": [1], "logprobs": [-1.0]},
        {"source": "model", "ids": [1]},
        {"source": "policy", "ids": [1.5]},
        {"source": "policy", "ids": [1], "logprobs": [-1.0, -1.0]},
        {"source": "policy", "ids": [2**40]},
        {"source": "policy"},
        {"source": "policy", "ids": 5},
        {"source": "policy", "ids": [1], "weight": "x"},
        {"source": "policy", "ids": [1], "version": "abc"},
        {"source": "policy", "ids": [1], "mask": 1},
    ],
)
def test_a_file_can_not_smuggle_a_broken_span_in(data: object) -> None:
    with pytest.raises(ValueError):
        Ledger.from_json([data])
