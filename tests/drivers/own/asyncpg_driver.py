"""asyncpg against DATABASE_URL. Each case opens its own connections and owns its own tables.

asyncpg speaks the extended protocol throughout, keeps a cache of named statements, asks the catalogue
for types that it does not know, and cleans up with several statements in one string.
"""

import asyncio
import datetime
import decimal
import uuid

import asyncpg

from cases import LIMIT_SECONDS, Failure, check, database_url, equal, raises, run

URL = database_url()
LARGE = 5 * 1024 * 1024


class connect:
    """`async with connect(...) as connection:` closes politely, and at once when the block failed."""

    def __init__(self, **options):
        self._options = {"timeout": 20, **options}

    async def __aenter__(self):
        self._connection = await asyncpg.connect(URL, **self._options)
        return self._connection

    async def __aexit__(self, kind, *_):
        if kind is None:
            await self._connection.close(timeout=20)
        else:
            self._connection.terminate()


async def fresh_table(connection, name, columns):
    await connection.execute(f"DROP TABLE IF EXISTS drivers_asyncpg_{name}")
    await connection.execute(f"CREATE TABLE drivers_asyncpg_{name} ({columns})")
    return f"drivers_asyncpg_{name}"


async def connects():
    async with connect() as connection:
        equal(await connection.fetchval("SELECT 1"), 1, "SELECT 1")
        check(connection.get_server_version().major >= 14, f"version {connection.get_server_version()}")
        equal(connection.get_settings().client_encoding, "UTF8", "client_encoding")


async def reads_its_writes():
    async with connect() as connection:
        table = await fresh_table(connection, "ryw", "id int PRIMARY KEY, note text")
        for number in range(200):
            await connection.execute(f"INSERT INTO {table} VALUES ($1, $2)", number, f"note {number}")
            note = await connection.fetchval(f"SELECT note FROM {table} WHERE id = $1", number)
            equal(note, f"note {number}", "own insert")
            await connection.execute(f"UPDATE {table} SET note = 'changed' WHERE id = {number}")
            note = await connection.fetchval(f"SELECT note FROM {table} WHERE id = {number}")
            equal(note, "changed", "own update")
        await connection.execute(f"DROP TABLE {table}")


async def parameters_of_many_types():
    values = [
        7, 2**40, 1.5, decimal.Decimal("12.3400"), "text 'quoted' \\ %", True, None, [1, 2, None],
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc), uuid.UUID(int=5), b"\x00\xff",
    ]  # fmt: skip
    types = ["int4", "int8", "float8", "numeric", "text", "bool", "text", "int4[]", "timestamptz", "uuid", "bytea"]
    statement = "SELECT " + ", ".join(f"${at}::{name}" for at, name in enumerate(types, 1))
    async with connect() as connection:
        for _ in range(3):
            equal(list(await connection.fetchrow(statement, *values)), values, "values")


async def types_of_its_own():
    async with connect() as connection:
        await connection.execute("DROP TYPE IF EXISTS drivers_asyncpg_pair, drivers_asyncpg_mood")
        await connection.execute("CREATE TYPE drivers_asyncpg_mood AS ENUM ('calm', 'upset')")
        await connection.execute("CREATE TYPE drivers_asyncpg_pair AS (a int, mood drivers_asyncpg_mood)")
        for _ in range(3):
            got = await connection.fetchval("SELECT $1::drivers_asyncpg_mood[]", ["calm", "upset"])
            equal(got, ["calm", "upset"], "an array of an enum")
            got = await connection.fetchval("SELECT $1::drivers_asyncpg_pair", (1, "calm"))
            equal(tuple(got), (1, "calm"), "a composite")
        await connection.execute("DROP TYPE drivers_asyncpg_pair, drivers_asyncpg_mood")


async def transactions():
    async with connect() as connection, connect() as other:
        await other.execute("SET causeway.consistency = 'strong'")
        table = await fresh_table(connection, "tx", "id int")
        count = f"SELECT count(*) FROM {table}"
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
            equal(await connection.fetchval(count), 1, "inside the transaction")
            equal(await other.fetchval(count), 0, "outside, before the commit")
        equal(await other.fetchval(count), 1, "outside, after the commit")
        try:
            async with connection.transaction():
                await connection.execute(f"INSERT INTO {table} VALUES (2)")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        equal(await connection.fetchval(count), 1, "after the rollback")
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {table} VALUES (3)")
            try:
                async with connection.transaction():
                    await connection.execute(f"INSERT INTO {table} VALUES (4)")
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        equal(await connection.fetchval(f"SELECT sum(id) FROM {table}"), 4, "after rolling back to a savepoint")
        for isolation in ("repeatable_read", "serializable"):
            async with connection.transaction(isolation=isolation):
                got = await connection.fetchval("SHOW transaction_isolation")
                equal(got, isolation.replace("_", " "), "isolation")
        with raises("25006", "a write in a read-only transaction"):
            async with connection.transaction(readonly=True):
                equal(await connection.fetchval(count), 2, "a read in a read-only transaction")
                await connection.execute(f"INSERT INTO {table} VALUES (5)")
        async with connection.transaction(isolation="serializable", readonly=True, deferrable=True):
            equal(await connection.fetchval(count), 2, "a deferrable transaction")
        await connection.execute(f"DROP TABLE {table}")


async def errors_have_their_sqlstate():
    async with connect() as connection:
        table = await fresh_table(connection, "errors", "id int PRIMARY KEY")
        await connection.execute(f"INSERT INTO {table} VALUES (1)")
        with raises("23505", "unique violation"):
            await connection.execute(f"INSERT INTO {table} VALUES ($1)", 1)
        with raises("42601", "syntax error"):
            await connection.fetch("SELEC 1")
        with raises("42P01", "undefined table"):
            await connection.fetch("SELECT * FROM drivers_asyncpg_undefined")
        with raises("42601", "syntax error in a simple query"):
            await connection.execute("SELEC 1")
        try:
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
        except asyncpg.UniqueViolationError as error:
            equal(error.constraint_name, f"{table}_pkey", "constraint_name")
        transaction = connection.transaction()
        await transaction.start()
        with raises("22012", "division by zero"):
            await connection.fetchval("SELECT 1 / $1::int", 0)
        with raises("25P02", "a statement in a failed transaction"):
            await connection.fetchval("SELECT 1")
        await transaction.rollback()
        equal(await connection.fetchval("SELECT 1"), 1, "after the errors")
        await connection.execute(f"DROP TABLE {table}")


async def prepared_statements_beyond_the_cache():
    async with connect(statement_cache_size=100) as connection:
        for _ in range(3):
            for number in range(250):
                statement = f"SELECT $1::int + {number}"
                for argument in (1, 2):
                    equal(await connection.fetchval(statement, argument), number + argument, statement)
        prepared = [await connection.prepare(f"SELECT $1::int * {number}") for number in range(50)]
        for _ in range(20):
            for number, statement in enumerate(prepared):
                equal(await statement.fetchval(3), number * 3, "a statement of its own")
        equal([column.type.name for column in prepared[0].get_attributes()], ["int4"], "types of the columns")
    async with connect(statement_cache_size=0) as connection:
        for number in range(50):
            equal(await connection.fetchval("SELECT $1::int", number), number, "without a cache")


async def executes_many():
    async with connect() as connection:
        table = await fresh_table(connection, "many", "id int PRIMARY KEY, note text")
        rows = [(number, f"note {number}") for number in range(5000)]
        await connection.executemany(f"INSERT INTO {table} VALUES ($1, $2)", rows)
        equal(await connection.fetchval(f"SELECT count(*) FROM {table}"), 5000, "rows of executemany")
        got = await connection.fetchmany(
            f"UPDATE {table} SET note = $2 WHERE id = $1 RETURNING id", [(1, "a"), (2, "b")]
        )
        equal([row["id"] for row in got], [1, 2], "fetchmany")
        with raises("23505", "executemany with a duplicate"):
            await connection.executemany(f"INSERT INTO {table} VALUES ($1, $2)", [(9000, "x"), (1, "y"), (9001, "z")])
        equal(await connection.fetchval(f"SELECT count(*) FROM {table}"), 5000, "rows after the failed executemany")
        await connection.execute(f"DROP TABLE {table}")


async def copy_in_and_out():
    rows = [(number, f"row {number}\t\\ü", None if number % 3 else "x") for number in range(20000)]
    async with connect() as connection:
        table = await fresh_table(connection, "copy", "id int, note text, nothing text")
        status = await connection.copy_records_to_table(table, records=rows)
        equal(status, "COPY 20000", "the status of COPY in")
        parts = []

        async def keep(data):
            parts.append(data)

        status = await connection.copy_from_query(f"SELECT * FROM {table} WHERE id >= $1 ORDER BY id", 0, output=keep)
        equal(status, "COPY 20000", "the status of COPY out")
        await connection.execute(f"TRUNCATE {table}")

        async def source():
            for part in parts:
                yield part

        await connection.copy_to_table(table, source=source())
        got = await connection.fetch(f"SELECT * FROM {table} ORDER BY id")
        equal([tuple(row) for row in got], rows, "rows that went out and in")

        async def broken():
            yield b"one\ttwo\tthree\n"

        with raises("22P02", "COPY of a value that is no number"):
            await connection.copy_to_table(table, source=broken())
        equal(await connection.fetchval(f"SELECT count(*) FROM {table}"), 20000, "rows after the failed copy")
        await connection.execute(f"DROP TABLE {table}")


async def cancels():
    async with connect() as connection:
        for number in range(5):
            try:
                await connection.execute("SELECT pg_sleep(50)", timeout=0.2)
                raise Failure("a query outlived its timeout")
            except asyncio.TimeoutError:
                pass
            equal(await connection.fetchval("SELECT $1::int", number), number, "after a timeout")
        task = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(50)"))
        await asyncio.wait([task], timeout=0.2)
        task.cancel()
        try:
            await task
            raise Failure("a cancelled task went on")
        except asyncio.CancelledError:
            pass
        equal(await connection.fetchval("SELECT 2"), 2, "after a cancelled task")
        await connection.execute("SET statement_timeout = '150ms'")
        with raises("57014", "statement_timeout"):
            await connection.fetchval("SELECT pg_sleep(50)")
        await connection.execute("RESET statement_timeout")
        equal(await connection.fetchval("SELECT 3"), 3, "after statement_timeout")


async def cursors():
    async with connect() as connection:
        async with connection.transaction():
            cursor = await connection.cursor("SELECT n FROM generate_series(1, $1::int) AS n", 10000)
            equal([row[0] for row in await cursor.fetch(10)], list(range(1, 11)), "ten rows")
            equal(await connection.fetchval("SELECT 'between'"), "between", "another statement between two fetches")
            equal(await cursor.forward(5), 5, "forward")
            equal((await cursor.fetchrow())[0], 16, "the row after forward")
        async with connection.transaction():
            total = 0
            async for row in connection.cursor("SELECT n FROM generate_series(1, 5000) AS n", prefetch=70):
                total += row[0]
            equal(total, 5000 * 5001 // 2, "a sum over an iterated cursor")
        equal(await connection.fetchval("SELECT 1"), 1, "after the cursors")


async def values_of_all_kinds():
    everything = bytes(range(256))
    unicode = "naïve Ελλάδα 日本語 🐘 \u0001 \\ ' \""
    async with connect() as connection:
        table = await fresh_table(connection, "values", "id int, t text, b bytea")
        cases = [
            (1, None, None),
            (2, "", b""),
            (3, unicode, everything),
            (4, "é" * (LARGE // 2), everything * (LARGE // 256)),
        ]
        for row in cases:
            await connection.execute(f"INSERT INTO {table} VALUES ($1, $2, $3)", *row)
            got = await connection.fetchrow(f"SELECT * FROM {table} WHERE id = $1", row[0])
            equal(tuple(got), row, f"row {row[0]}")
        rows = await connection.fetch("SELECT n, repeat('x', 100) FROM generate_series(1, 200000) AS n")
        equal((len(rows), rows[-1][0]), (200000, 200000), "a large result")
        await connection.execute(f"DROP TABLE {table}")


async def listen_and_notify():
    async with connect() as listener, connect() as notifier:
        queue = asyncio.Queue()

        def note(_connection, _pid, channel, payload):
            queue.put_nowait((channel, payload))

        await listener.add_listener("drivers_asyncpg", note)
        await notifier.execute("NOTIFY drivers_asyncpg, 'from elsewhere: é'")
        got = await asyncio.wait_for(queue.get(), 20)
        equal(got, ("drivers_asyncpg", "from elsewhere: é"), "a notification from another connection")
        await notifier.execute("SELECT pg_notify('drivers_asyncpg', $1)", "two")
        equal((await asyncio.wait_for(queue.get(), 20))[1], "two", "pg_notify")
        equal(await listener.fetchval("SELECT 1"), 1, "a query on the listening connection")
        await listener.remove_listener("drivers_asyncpg", note)


async def notices():
    async with connect() as connection:
        seen = []
        connection.add_log_listener(lambda _connection, message: seen.append((message.severity, message.message)))
        await connection.execute("DO $$ BEGIN RAISE WARNING 'careful: %', 1; END $$")
        await asyncio.sleep(0)  # asyncpg hands notices over in the next turn of the loop
        equal(seen, [("WARNING", "careful: 1")], "notices")


async def settings_do_not_leak():
    ready = asyncio.Barrier(8)

    async def worker(number):
        async with connect(server_settings={"application_name": f"drivers {number}"}) as connection:
            await connection.execute(f"SET statement_timeout = {20001 + number}")
            await ready.wait()
            for _ in range(60):
                got = await connection.fetchrow(
                    "SELECT current_setting('statement_timeout'), current_setting('application_name'), $1::int", number
                )
                equal(
                    tuple(got), (f"{20001 + number}ms", f"drivers {number}", number), f"settings of connection {number}"
                )
            await connection.execute("RESET ALL")
            equal(await connection.fetchval("SHOW statement_timeout"), "0", "after RESET ALL")
            equal(
                await connection.fetchval("SHOW application_name"),
                f"drivers {number}",
                "a startup parameter after RESET ALL",
            )

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(worker(number))


async def pools():
    async with asyncpg.create_pool(URL, min_size=2, max_size=5, timeout=20) as pool:
        async with pool.acquire() as connection:
            table = await fresh_table(connection, "pool", "id int PRIMARY KEY")

        async def worker(number):
            async with pool.acquire() as connection:
                await connection.execute(f"SET statement_timeout = {20001 + number}")
                await connection.execute(f"INSERT INTO {table} VALUES ($1)", number)
                got = await connection.fetchval(f"SELECT id FROM {table} WHERE id = $1", number)
                equal(got, number, "own insert")
            async with pool.acquire() as connection:
                equal(
                    await connection.fetchval("SHOW statement_timeout"), "0", "a setting of the last user of the pool"
                )

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(worker(number))
        async with pool.acquire() as connection:
            await connection.execute("SET causeway.consistency = 'strong'")
            equal(await connection.fetchval(f"SELECT count(*) FROM {table}"), 100, "rows of all workers")
            await connection.execute(f"DROP TABLE {table}")


async def temporary_tables():
    async with connect() as connection, connect() as other:
        await connection.execute("CREATE TEMPORARY TABLE drivers_temporary (id int)")
        for number in range(20):
            await connection.execute("INSERT INTO drivers_temporary VALUES ($1)", number)
        equal(await connection.fetchval("SELECT count(*) FROM drivers_temporary"), 20, "rows of a temporary table")
        with raises("42P01", "another connection's temporary table"):
            await other.fetch("SELECT * FROM drivers_temporary")
    async with connect() as connection:
        with raises("42P01", "a temporary table of a connection that has ended"):
            await connection.fetch("SELECT * FROM drivers_temporary")


async def session_advisory_locks():
    key = 7_203_002
    async with connect() as waiter:
        async with connect() as holder:
            await holder.execute("SELECT pg_advisory_lock($1)", key)
            equal(await waiter.fetchval("SELECT pg_try_advisory_lock($1)", key), False, "the lock while it is held")
            equal(await holder.fetchval("SELECT pg_advisory_unlock($1)", key), True, "unlock by the holder")
            equal(await waiter.fetchval("SELECT pg_try_advisory_lock($1)", key), True, "the lock when it is free")
            equal(await waiter.fetchval("SELECT pg_advisory_unlock($1)", key), True, "unlock by the second")
            await holder.execute("SELECT pg_advisory_lock($1)", key)
        await waiter.execute("SET lock_timeout = '20s'")
        await waiter.execute("SELECT pg_advisory_lock($1)", key)  # released because its holder has gone
        equal(await waiter.fetchval("SELECT pg_advisory_unlock($1)", key), True, "unlock at the end")


CASES = [
    connects, reads_its_writes, parameters_of_many_types, types_of_its_own, transactions,
    errors_have_their_sqlstate, prepared_statements_beyond_the_cache, executes_many, copy_in_and_out, cancels,
    cursors, values_of_all_kinds, listen_and_notify, notices, settings_do_not_leak, pools, temporary_tables,
    session_advisory_locks,
]  # fmt: skip


def call(case):
    async def limited():
        limit = asyncio.timeout(LIMIT_SECONDS)
        try:
            async with limit:
                await case()
        except TimeoutError as error:
            if limit.expired():
                raise Failure(f"no end after {LIMIT_SECONDS} s") from error
            raise
        except ExceptionGroup as group:
            raise group.exceptions[0]

    asyncio.run(limited())


run("asyncpg", CASES, call)
