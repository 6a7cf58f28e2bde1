// postgres.js against DATABASE_URL. It pipelines by default and prepares every statement.
// Each case opens its own connections and owns its own tables.

import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";
import { check, databaseUrl, equal, raises, run } from "./cases.mjs";

const URL = databaseUrl();
const LARGE = 5 * 1024 * 1024;

async function connected(body, options = {}) {
  const sql = postgres(URL, { max: 1, connect_timeout: 20, onnotice: () => {}, ...options });
  try {
    return await body(sql);
  } finally {
    await sql.end({ timeout: 10 });
  }
}

async function freshTable(sql, name, columns) {
  const table = `drivers_postgresjs_${name}`;
  await sql.unsafe(`DROP TABLE IF EXISTS ${table}`);
  await sql.unsafe(`CREATE TABLE ${table} (${columns})`);
  return table;
}

const range = (count) => Array.from({ length: count }, (_, number) => number);

const cases = {
  connects: () =>
    connected(async (sql) => {
      equal([...(await sql`SELECT 1 AS one`)], [{ one: 1 }], "SELECT 1");
      check(sql.parameters.server_version !== undefined, "server_version is reported");
    }),

  reads_its_writes: () =>
    connected(async (sql) => {
      const table = await freshTable(sql, "ryw", "id int PRIMARY KEY, note text");
      for (const number of range(200)) {
        await sql`INSERT INTO ${sql(table)} VALUES (${number}, ${`note ${number}`})`;
        const [row] = await sql`SELECT note FROM ${sql(table)} WHERE id = ${number}`;
        equal(row?.note, `note ${number}`, "own insert");
      }
      await sql`DROP TABLE ${sql(table)}`;
    }),

  pipelines: () =>
    connected(async (sql) => {
      const table = await freshTable(sql, "pipeline", "id int PRIMARY KEY");
      const results = await Promise.all(
        range(400).flatMap((number) => [
          sql`INSERT INTO ${sql(table)} VALUES (${number})`,
          sql`SELECT id FROM ${sql(table)} WHERE id = ${number}`,
        ]),
      );
      equal(
        results.filter((_, at) => at % 2).map((rows) => rows[0]?.id),
        range(400),
        "reads behind their writes",
      );
      const mixed = await Promise.allSettled([
        sql`SELECT 1 AS n`,
        sql`INSERT INTO ${sql(table)} VALUES (1)`,
        sql`SELECT 2 AS n`,
      ]);
      equal(
        mixed.map((each) => each.value?.[0].n ?? each.reason?.code),
        [1, "23505", 2],
        "an error between two queries",
      );
      await sql`DROP TABLE ${sql(table)}`;
    }),

  transactions: () =>
    connected(async (sql) => {
      const table = await freshTable(sql, "tx", "id int");
      await sql.begin(async (tx) => {
        await tx`INSERT INTO ${tx(table)} VALUES (1)`;
        await tx
          .savepoint((inner) => inner`INSERT INTO ${inner(table)} VALUES (2)`.then(() => Promise.reject("back")))
          .catch((reason) => equal(reason, "back", "the reason of the inner rollback"));
        equal([...(await tx`SELECT id FROM ${tx(table)}`)], [{ id: 1 }], "after rolling back to a savepoint");
      });
      const failing = sql.begin(async (tx) => {
        await tx`INSERT INTO ${tx(table)} VALUES (3)`;
        await tx`SELECT 1 / ${0}::int`;
      });
      await raises("22012", failing, "an error inside a transaction");
      equal([...(await sql`SELECT id FROM ${sql(table)}`)], [{ id: 1 }], "after the transactions");
      const writing = sql.begin("READ ONLY", (tx) => tx`INSERT INTO ${tx(table)} VALUES (4)`);
      await raises("25006", writing, "a write in a read-only transaction");
      await sql`DROP TABLE ${sql(table)}`;
    }),

  errors_have_their_sqlstate: () =>
    connected(async (sql) => {
      const table = await freshTable(sql, "errors", "id int PRIMARY KEY");
      await sql`INSERT INTO ${sql(table)} VALUES (1)`;
      await raises("23505", sql`INSERT INTO ${sql(table)} VALUES (${1})`, "unique violation");
      await raises("42601", sql`SELEC 1`, "syntax error");
      await raises("42P01", sql`SELECT * FROM drivers_postgresjs_undefined`, "undefined table");
      await raises("42601", sql.unsafe("SELEC 1").simple(), "syntax error in a simple query");
      equal([...(await sql`SELECT 1 AS one`)], [{ one: 1 }], "after the errors");
      await sql`DROP TABLE ${sql(table)}`;
    }),

  many_prepared_statements: () =>
    connected(async (sql) => {
      for (const round of range(3)) {
        const rows = await Promise.all(
          range(250).map((number) => sql.unsafe(`SELECT $1::int + ${number} AS n`, [round], { prepare: true })),
        );
        equal(
          rows.map(([row]) => row.n),
          range(250).map((number) => round + number),
          "prepared statements",
        );
      }
    }),

  several_statements_in_one_string: () =>
    connected(async (sql) => {
      const results = await sql`SELECT 1 AS a; SELECT 2 AS b`.simple();
      equal(
        results.map((rows) => [...rows]),
        [[{ a: 1 }], [{ b: 2 }]],
        "two results",
      );
    }),

  copy_in_and_out: () =>
    connected(async (sql) => {
      const table = await freshTable(sql, "copy", "id int, note text");
      const lines = range(20000).map((number) => `${number}\trow ${number} ü\n`);
      await pipeline(Readable.from(lines), await sql`COPY ${sql(table)} FROM STDIN`.writable());
      const [{ count }] = await sql`SELECT count(*)::int FROM ${sql(table)}`;
      equal(count, 20000, "rows copied in");
      // Not all of them: beyond its buffer of 16 KB this version may pause the socket for good, against
      // a plain PostgreSQL too (in one of three runs).
      const parts = [];
      for await (const part of await sql`COPY (SELECT * FROM ${sql(table)} ORDER BY id LIMIT 500) TO STDOUT`.readable()) {
        parts.push(part);
      }
      check(Buffer.concat(parts).toString() === lines.slice(0, 500).join(""), "rows copied out are those copied in");
      await sql`DROP TABLE ${sql(table)}`;
    }),

  cancels: () =>
    connected(async (sql) => {
      for (const number of range(3)) {
        const query = sql`SELECT pg_sleep(50)`;
        const ended = query.execute();
        // A cancel that comes before its query does nothing, so it is repeated until the query has ended.
        const again = setInterval(() => query.cancel(), 200);
        try {
          await raises("57014", ended, "a cancelled pg_sleep");
        } finally {
          clearInterval(again);
        }
        equal([...(await sql`SELECT ${number}::int AS n`)], [{ n: number }], "after the cancel");
      }
    }),

  cursors: () =>
    connected(async (sql) => {
      const seen = [];
      await sql`SELECT generate_series(1, 10000) AS n`.cursor(10, (rows) => {
        seen.push(...rows.map((row) => row.n));
        return seen.length >= 50 ? sql.CLOSE : undefined;
      });
      equal(
        seen,
        range(50).map((n) => n + 1),
        "fifty rows of a cursor that was closed early",
      );
      equal([...(await sql`SELECT 1 AS one`)], [{ one: 1 }], "after the cursor");
    }),

  values_of_all_kinds: () =>
    connected(async (sql) => {
      const everything = Buffer.from(range(256));
      const table = await freshTable(sql, "values", "id int, t text, b bytea");
      const rows = [
        { id: 1, t: null, b: null },
        { id: 2, t: "", b: Buffer.alloc(0) },
        { id: 3, t: "naïve Ελλάδα 日本語 🐘 \u0001 \\ ' \"", b: everything },
        { id: 4, t: "é".repeat(LARGE / 2), b: Buffer.alloc(LARGE, everything) },
      ];
      for (const row of rows) {
        await sql`INSERT INTO ${sql(table)} ${sql(row)}`;
        const [got] = await sql`SELECT * FROM ${sql(table)} WHERE id = ${row.id}`;
        equal({ ...got }, row, `row ${row.id}`);
      }
      await sql`DROP TABLE ${sql(table)}`;
    }),

  listen_and_notify: () =>
    connected((listener) =>
      connected(async (notifier) => {
        const target = new EventTarget();
        const listening = await listener.listen("drivers_postgresjs", (payload) => {
          target.dispatchEvent(new MessageEvent("note", { data: payload }));
        });
        const arrival = once(target, "note", { signal: AbortSignal.timeout(20000) });
        await notifier.notify("drivers_postgresjs", "é 1");
        equal((await arrival)[0].data, "é 1", "the payload");
        await listening.unlisten();
      }),
    ),

  settings_do_not_leak: () =>
    Promise.all(
      range(8).map((number) =>
        connected(
          async (sql) => {
            await sql.unsafe(`SET statement_timeout = ${20001 + number}`);
            for (const round of range(60)) {
              const [row] = await sql`SELECT current_setting('statement_timeout') AS t,
                current_setting('application_name') AS a, ${round}::int AS n`;
              equal({ ...row }, { t: `${20001 + number}ms`, a: `drivers ${number}`, n: round }, `connection ${number}`);
            }
          },
          { connection: { application_name: `drivers ${number}` } },
        ),
      ),
    ),

  session_advisory_locks: () =>
    connected(async (waiter) => {
      const key = 7203004;
      await connected(async (holder) => {
        await holder`SELECT pg_advisory_lock(${key})`;
        const [row] = await waiter`SELECT pg_try_advisory_lock(${key}) AS got`;
        equal(row.got, false, "the lock while it is held");
      });
      await waiter`SET lock_timeout = '20s'`;
      await waiter`SELECT pg_advisory_lock(${key})`; // released because its holder has gone
      const [row] = await waiter`SELECT pg_advisory_unlock(${key}) AS released`;
      equal(row.released, true, "unlock at the end");
    }),
};

await run("postgres.js", cases);
