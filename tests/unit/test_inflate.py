"""The bounded codecs: the same bytes as aiokafka's own codecs, and an end where the bound is."""

from __future__ import annotations

import gc

import pytest
from aiokafka import codec as aiokafka_codec
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd import inflate
from tests.rig.raw_batch import CODECS, compressed_batch

BOUND = 4 << 20


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    inflate.Inflation(BOUND).install()


def values_of(batch: bytes) -> list[bytes]:
    return [record.value for record in MemoryRecords(batch).next_batch()]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, 1 << 10, (1 << 20) - 16, 1 << 20, 3 << 20])
def test_a_batch_comes_out_as_it_was_put_in(codec: str, size: int) -> None:
    values = [b"first", b"x" * size, b"last"]
    assert values_of(compressed_batch(codec, values)) == values


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_would_be_larger_than_the_bound_is_refused_by_its_key(codec: str) -> None:
    batch = compressed_batch(codec, [bytes(BOUND)])
    with pytest.raises(inflate.BatchTooLarge, match=r"limits\.batch_inflated_bytes"):
        values_of(batch)


@given(st.lists(st.binary(max_size=2_000), max_size=30), st.booleans())
def test_snappy_is_read_with_the_header_of_java_and_without(parts: list[bytes], java: bool) -> None:
    content = b"".join(parts)
    packed = aiokafka_codec.snappy_encode(content, java, 1_000)
    assert inflate.Inflation(BOUND)._snappy(packed) == content


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_cut_off_is_an_error_and_not_less(codec: str) -> None:
    whole = compressed_batch(codec, [bytes(range(256)) * 100])
    with pytest.raises(Exception) as caught:  # each codec has its own
        values_of(whole[:8] + (len(whole) - 22).to_bytes(4, "big") + whole[12:-10])
    assert not isinstance(caught.value, inflate.BatchTooLarge)


def test_what_one_turn_inflates_is_bounded_but_for_its_first_batch() -> None:
    batches = [compressed_batch("zstd", [bytes(600)]) for _ in range(3)]
    with inflate.turn(1_500) as spent:
        assert [len(values_of(batch)[0]) for batch in batches[:2]] == [600, 600]
        assert 1_200 < spent.bytes < 1_500
        with pytest.raises(inflate.PollTooLarge):
            values_of(batches[2])
    with inflate.turn(100):
        values_of(batches[0])
    values_of(batches[1])  # outside of a turn nothing is summed up


def test_batches_that_are_read_in_part_are_counted_until_they_are_let_go() -> None:
    gc.collect()
    before = inflate.live_bytes()
    half_read = iter(MemoryRecords(compressed_batch("lz4", [b"a", bytes(10_000)])).next_batch())
    next(half_read)
    assert inflate.live_bytes() - before > 10_000
    del half_read
    gc.collect()
    assert inflate.live_bytes() == before
