"""The search for what can be read again, where the broker cannot say where a bad batch ends."""

from __future__ import annotations

import pytest

from dispatcherd.unreadable import first_readable


@pytest.mark.parametrize("first", [101, 102, 103, 117, 999, 5_000])
async def test_the_first_readable_offset_behind_a_bad_batch_is_found_in_few_tries(
    first: int,
) -> None:
    tried = []

    async def readable(offset: int) -> bool:
        tried.append(offset)
        return offset >= first

    assert await first_readable(readable, 100, 5_000) == first
    assert len(tried) < 30 and 100 not in tried


async def test_where_nothing_more_can_be_read_it_is_the_end() -> None:
    async def readable(offset: int) -> bool:
        return False

    assert await first_readable(readable, 100, 164) == 164
