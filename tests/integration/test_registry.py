"""Registrations on a real Postgres: written as far as they differ, read as far as they changed."""

from __future__ import annotations

from typing import Any

from dispatcherd.config.model import EndpointConfig
from dispatcherd.record import registry
from tests.rig.store import Store
from tests.rig.store import store as store_on

LIVE = "SELECT name FROM endpoints WHERE removed_at IS NULL ORDER BY id"


def endpoint(name: str, **keys: Any) -> EndpointConfig:
    return EndpointConfig.model_validate(
        {"id": name, "url": f"https://example.com/{name}", "sign": {"standard": False}, **keys}
    )


async def names(store: Store) -> list[str]:
    return [name for (name,) in await store.fetch(LIVE)]


async def remove(store: Store, name: str) -> bool:
    async with store.database.session() as connection:
        return await registry.remove(connection, name)


async def test_a_file_is_registered_in_its_order_also_where_it_takes_several_statements(
    store: Store,
) -> None:
    file = [endpoint(f"e{(7 * n) % 20_011}") for n in range(20_011)]
    found, changed = await registry.reconcile(store.database, file)
    assert changed == [config.id for config in file] == await names(store)
    assert [one.config for one in found.live] == file
    assert not any(one.held or one.stale for one in found.live)
    assert found.version == await registry.version(store.database)


async def test_what_the_table_has_already_is_not_written_again(store: Store) -> None:
    file = [endpoint("one"), endpoint("two", filter={"all": [{"field": "a", "equals": 1}]})]
    first, _ = await registry.reconcile(store.database, file)
    rows = await store.fetch("SELECT ctid, * FROM endpoints ORDER BY id")
    second, changed = await registry.reconcile(store.database, file)
    assert changed == []
    assert (second.version, second.live) == (first.version, first.live)
    assert await store.fetch("SELECT ctid, * FROM endpoints ORDER BY id") == rows


async def test_a_condition_that_differs_in_its_kind_alone_is_a_change(store: Store) -> None:
    """`true` is no 1 (to Python it is)."""
    for value in (1, True):
        file = [endpoint("one", filter={"all": [{"field": "a", "equals": value}]})]
        _, changed = await registry.reconcile(store.database, file)
        assert changed == ["one"]
    assert await store.value("SELECT spec #> '{filter,all,0,equals}' FROM endpoints") == "true"


async def test_what_is_missing_in_a_file_is_held_and_a_lower_revision_yields(store: Store) -> None:
    await registry.reconcile(
        store.database, [endpoint("old"), endpoint("one", revision=2, timeout_seconds=3.0)]
    )
    file = [endpoint("one", revision=1, timeout_seconds=9.0, headers={"x-own": "mine"})]
    found, changed = await registry.reconcile(store.database, file)
    assert changed == []
    held, stale = found.live
    assert (held.config.id, held.held) == ("old", True)
    assert (stale.held, stale.stale) == (False, True)
    assert stale.config.timeout_seconds == 3.0
    assert stale.config.headers == {"x-own": "mine"}


async def test_another_process_reads_only_what_has_changed_since_it_looked(
    store: Store, dsn: str
) -> None:
    mine = [endpoint("one"), endpoint("two"), endpoint("three")]
    seen, _ = await registry.reconcile(store.database, mine)
    numbers = {one.config.id: one.id for one in seen.live}
    async with store_on(dsn) as other:
        theirs = [endpoint("one"), endpoint("two", timeout_seconds=3.0), endpoint("four")]
        await registry.reconcile(other.database, theirs)
        assert await remove(other, "three")
    assert await registry.version(store.database) > seen.version
    found = await registry.read(store.database, mine, seen.version)
    assert [(one.config.id, one.held) for one in found.live] == [("two", False), ("four", True)]
    assert found.removed == [numbers["three"]]
    again = await registry.read(store.database, mine, found.version)
    assert (again.version, again.live, again.removed) == (found.version, [], [])


async def test_a_removed_name_that_is_still_in_a_file_is_registered_as_another(
    store: Store,
) -> None:
    first, _ = await registry.reconcile(store.database, [endpoint("one")])
    assert await remove(store, "one")
    assert not await remove(store, "one")
    second, changed = await registry.reconcile(store.database, [endpoint("one")])
    assert changed == ["one"]
    assert second.live[0].id != first.live[0].id


async def test_a_change_that_is_not_committed_has_no_version_yet(store: Store) -> None:
    """Otherwise who looks in between would never look again."""
    seen, _ = await registry.reconcile(store.database, [endpoint("one")])
    async with store.database.session() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await registry.remove(connection, "one")
        assert await registry.version(store.database) == seen.version
        await transaction.commit()
    found = await registry.read(store.database, [], seen.version)
    assert found.removed == [seen.live[0].id]
    assert found.version > seen.version
