// node-postgres (pg, with pg-cursor and pg-copy-streams) against DATABASE_URL.
// Each case opens its own connections and owns its own tables.

import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import copyStreams from "pg-copy-streams";
import Cursor from "pg-cursor";
import { check, databaseUrl, equal, raises, run } from "./cases.mjs";

const URL = databaseUrl();
const LARGE = 5 * 1024 * 1024;

async function connected(body, options = {}) {
  const client = new pg.Client({ connectionString: URL, connectionTimeoutMillis: 20000, ...options });
  // A connection that breaks says so in an event; whoever waits for a query gets the same as an error.
  client.on("error", (error) => console.error(`node-postgres: ${error.message}`));
  await client.connect();
  try {
    return await body(client);
  } finally {
    await client.end();
  }
}

async function freshTable(client, name, columns) {
  const table = `drivers_pg_${name}`;
  await client.query(`DROP TABLE IF EXISTS ${table}`);
  await client.query(`CREATE TABLE ${table} (${columns})`);
  return table;
}

async function one(client, text, values) {
  const result = await client.query({ text, values, rowMode: "array" });
  return result.rows[0][0];
}

const range = (count) => Array.from({ length: count }, (_, number) => number);

const cases = {
  connects: () =>
    connected(async (client) => {
      equal(await one(client, "SELECT 1"), 1, "SELECT 1");
      check(Number(await one(client, "SHOW server_version_num")) >= 140000, "server_version_num");
    }),

  reads_its_writes: () =>
    connected(async (client) => {
      const table = await freshTable(client, "ryw", "id int PRIMARY KEY, note text");
      for (const number of range(200)) {
        await client.query(`INSERT INTO ${table} VALUES ($1, $2)`, [number, `note ${number}`]);
        equal(await one(client, `SELECT note FROM ${table} WHERE id = $1`, [number]), `note ${number}`, "own insert");
        await client.query(`UPDATE ${table} SET note = 'changed' WHERE id = ${number}`);
        equal(await one(client, `SELECT note FROM ${table} WHERE id = ${number}`), "changed", "own update");
      }
      await client.query(`DROP TABLE ${table}`);
    }),

  parameters_of_many_types: () =>
    connected(async (client) => {
      const moment = new Date("2024-02-29T12:30:00Z");
      const values = [
        7,
        "1099511627776",
        1.5,
        "12.3400",
        "text 'quoted' \\ %",
        true,
        null,
        [1, 2, null],
        moment,
        { a: [1] },
      ];
      const types = ["int4", "int8", "float8", "numeric", "text", "bool", "text", "int4[]", "timestamptz", "jsonb"];
      const columns = types.map((type, at) => `$${at + 1}::${type}`).join(", ");
      const result = await client.query({ text: `SELECT ${columns}`, values, rowMode: "array" });
      equal(result.rows[0], values, "values");
    }),

  transactions: () =>
    connected(async (client) => {
      const table = await freshTable(client, "tx", "id int");
      await connected(async (other) => {
        await other.query("SET causeway.consistency = 'strong'");
        const count = `SELECT count(*)::int FROM ${table}`;
        await client.query("BEGIN");
        await client.query(`INSERT INTO ${table} VALUES ($1)`, [1]);
        equal(await one(client, count), 1, "inside the transaction");
        equal(await one(other, count), 0, "outside, before the commit");
        await client.query("COMMIT");
        equal(await one(other, count), 1, "outside, after the commit");
        await client.query("BEGIN");
        await client.query(`INSERT INTO ${table} VALUES (2)`);
        await client.query("ROLLBACK");
        equal(await one(client, count), 1, "after the rollback");
        await client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY");
        equal(await one(client, "SHOW transaction_isolation"), "serializable", "isolation");
        await raises("25006", client.query(`INSERT INTO ${table} VALUES (3)`), "a write in a read-only transaction");
        await client.query("ROLLBACK");
      });
      await client.query(`DROP TABLE ${table}`);
    }),

  errors_have_their_sqlstate: () =>
    connected(async (client) => {
      const table = await freshTable(client, "errors", "id int PRIMARY KEY");
      await client.query(`INSERT INTO ${table} VALUES (1)`);
      const error = await raises("23505", client.query(`INSERT INTO ${table} VALUES ($1)`, [1]), "unique violation");
      equal(error.constraint, `${table}_pkey`, "constraint");
      await raises("42601", client.query("SELEC 1"), "syntax error");
      await raises("42601", client.query("SELEC $1", [1]), "syntax error with a parameter");
      await raises("42P01", client.query("SELECT * FROM drivers_pg_undefined"), "undefined table");
      await client.query("BEGIN");
      await raises("22012", client.query("SELECT 1 / $1::int", [0]), "division by zero");
      await raises("25P02", client.query("SELECT 1"), "a statement in a failed transaction");
      await client.query("ROLLBACK");
      equal(await one(client, "SELECT 1"), 1, "after the errors");
      await client.query(`DROP TABLE ${table}`);
    }),

  named_prepared_statements: () =>
    connected(async (client) => {
      for (const round of range(5)) {
        for (const number of range(150)) {
          const query = { name: `drivers_${number}`, text: `SELECT $1::int + ${number} AS sum`, values: [round] };
          equal((await client.query(query)).rows, [{ sum: round + number }], query.text);
        }
      }
      const table = await freshTable(client, "named", "id int PRIMARY KEY");
      for (const number of range(100)) {
        await client.query({ name: "drivers_in", text: `INSERT INTO ${table} VALUES ($1)`, values: [number] });
        const query = { name: "drivers_out", text: `SELECT id FROM ${table} WHERE id = $1`, values: [number] };
        equal((await client.query(query)).rows, [{ id: number }], "own prepared insert");
      }
      await client.query(`DROP TABLE ${table}`);
    }),

  same_names_on_many_connections: () =>
    Promise.all(
      range(8).map((number) =>
        connected(async (client) => {
          for (const round of range(50)) {
            const query = { name: "drivers_same", text: `SELECT $1::int * ${number} AS product`, values: [round] };
            equal((await client.query(query)).rows, [{ product: round * number }], `connection ${number}`);
          }
        }),
      ),
    ),

  several_statements_in_one_string: () =>
    connected(async (client) => {
      const results = await client.query("SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c WHERE false");
      equal(
        results.map((result) => result.rows),
        [[{ a: 1 }], [{ b: 2 }], []],
        "three results",
      );
      equal((await client.query("")).rows, [], "the empty query");
      equal(await one(client, "SELECT 1"), 1, "after the empty query");
    }),

  queues_queries: () =>
    connected(async (client) => {
      const results = await Promise.all(range(500).map((number) => one(client, "SELECT $1::int", [number])));
      equal(results, range(500), "queued queries");
      const mixed = [one(client, "SELECT 1"), client.query("SELEC 1"), one(client, "SELECT 2")];
      const settled = await Promise.allSettled(mixed);
      equal(
        settled.map((each) => each.value ?? each.reason?.code),
        [1, "42601", 2],
        "an error between two queries",
      );
    }),

  copy_in_and_out: () =>
    connected(async (client) => {
      const table = await freshTable(client, "copy", "id int, note text");
      const lines = range(20000).map((number) => `${number}\trow ${number} ü\n`);
      await pipeline(Readable.from(lines), client.query(copyStreams.from(`COPY ${table} FROM STDIN`)));
      equal(await one(client, `SELECT count(*)::int FROM ${table}`), 20000, "rows copied in");
      const parts = [];
      for await (const part of client.query(copyStreams.to(`COPY (SELECT * FROM ${table} ORDER BY id) TO STDOUT`))) {
        parts.push(part);
      }
      check(Buffer.concat(parts).toString() === lines.join(""), "rows copied out are those copied in");
      const broken = pipeline(
        Readable.from(["one\ttwo\n"]),
        client.query(copyStreams.from(`COPY ${table} FROM STDIN`)),
      );
      await raises("22P02", broken, "COPY of a value that is no number");
      equal(await one(client, `SELECT count(*)::int FROM ${table}`), 20000, "rows after the failed copy");
      await client.query(`DROP TABLE ${table}`);
    }),

  cancels: () =>
    connected(async (client) => {
      for (const number of range(3)) {
        const query = new pg.Query("SELECT pg_sleep(50)");
        const ended = new Promise((resolve, reject) => query.on("error", reject).on("end", resolve));
        client.query(query);
        // A cancel that comes before its query does nothing, so it is repeated until the query has ended.
        const again = setInterval(() => cancel(client, query), 200);
        try {
          await raises("57014", ended, "a cancelled pg_sleep");
        } finally {
          clearInterval(again);
        }
        await cancelling;
        equal(await one(client, "SELECT $1::int", [number]), number, "after the cancel");
      }
      await client.query("SET statement_timeout = '150ms'");
      await raises("57014", client.query("SELECT pg_sleep(50)"), "statement_timeout");
      await client.query("RESET statement_timeout");
      equal(await one(client, "SELECT 1"), 1, "after statement_timeout");
    }),

  cursors: () =>
    connected(async (client) => {
      await client.query("BEGIN");
      const cursor = client.query(new Cursor("SELECT n FROM generate_series(1, $1::int) AS n", [10000]));
      equal(
        (await cursor.read(10)).map((row) => row.n),
        range(10).map((n) => n + 1),
        "ten rows",
      );
      equal(
        (await cursor.read(2)).map((row) => row.n),
        [11, 12],
        "two more",
      );
      await cursor.close();
      await client.query("DECLARE drivers_declared CURSOR FOR SELECT generate_series(1, 10000) AS n");
      equal((await client.query("FETCH 3 FROM drivers_declared")).rows.length, 3, "FETCH");
      equal(await one(client, "SELECT 'between'"), "between", "another statement between two fetches");
      equal((await client.query("FETCH 1 FROM drivers_declared")).rows, [{ n: 4 }], "the next FETCH");
      await client.query("COMMIT");
      equal(await one(client, "SELECT 1"), 1, "after the cursors");
    }),

  values_of_all_kinds: () =>
    connected(async (client) => {
      const everything = Buffer.from(range(256));
      const table = await freshTable(client, "values", "id int, t text, b bytea");
      const rows = [
        [1, null, null],
        [2, "", Buffer.alloc(0)],
        [3, "naïve Ελλάδα 日本語 🐘 \u0001 \\ ' \"", everything],
        [4, "é".repeat(LARGE / 2), Buffer.alloc(LARGE, everything)],
      ];
      for (const row of rows) {
        await client.query(`INSERT INTO ${table} VALUES ($1, $2, $3)`, row);
        const text = `SELECT * FROM ${table} WHERE id = $1`;
        equal((await client.query({ text, values: [row[0]], rowMode: "array" })).rows[0], row, `row ${row[0]}`);
      }
      const result = await client.query("SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n");
      equal([result.rows.length, result.rows.at(-1).n], [100000, 100000], "a large result");
      await client.query(`DROP TABLE ${table}`);
    }),

  listen_and_notify: () =>
    connected((listener) =>
      connected(async (notifier) => {
        await listener.query("LISTEN drivers_pg");
        for (const text of ["NOTIFY drivers_pg, 'é 1'", "SELECT pg_notify('drivers_pg', 'é 1')"]) {
          const arrival = once(listener, "notification", { signal: AbortSignal.timeout(20000) });
          await notifier.query(text);
          const [{ channel, payload }] = await arrival;
          equal([channel, payload], ["drivers_pg", "é 1"], text);
        }
        equal(await one(listener, "SELECT 1"), 1, "a query on the listening connection");
        await listener.query("UNLISTEN *");
      }),
    ),

  settings_do_not_leak: () =>
    Promise.all(
      range(8).map((number) =>
        connected(
          async (client) => {
            await client.query(`SET statement_timeout = ${20001 + number}`);
            for (const round of range(60)) {
              const text = "SELECT current_setting('statement_timeout'), current_setting('application_name'), $1::int";
              const { rows } = await client.query({ text, values: [round], rowMode: "array" });
              equal(rows[0], [`${20001 + number}ms`, `drivers ${number}`, round], `settings of connection ${number}`);
            }
            await client.query("RESET statement_timeout");
            equal(await one(client, "SHOW statement_timeout"), "0", "after RESET");
          },
          { application_name: `drivers ${number}` },
        ),
      ),
    ),

  temporary_tables: async () => {
    await connected((client) =>
      connected(async (other) => {
        await client.query("CREATE TEMPORARY TABLE drivers_temporary (id int)");
        for (const number of range(20)) await client.query("INSERT INTO drivers_temporary VALUES ($1)", [number]);
        equal(await one(client, "SELECT count(*)::int FROM drivers_temporary"), 20, "rows of a temporary table");
        await raises("42P01", other.query("TABLE drivers_temporary"), "another connection's temporary table");
      }),
    );
    await connected((client) =>
      raises("42P01", client.query("TABLE drivers_temporary"), "a temporary table of a connection that has ended"),
    );
  },

  session_advisory_locks: () =>
    connected(async (waiter) => {
      const key = 7203003;
      const attempt = () => one(waiter, "SELECT pg_try_advisory_lock($1)", [key]);
      await connected(async (holder) => {
        await holder.query("SELECT pg_advisory_lock($1)", [key]);
        equal(await attempt(), false, "the lock while it is held");
        equal(await one(holder, "SELECT pg_advisory_unlock($1)", [key]), true, "unlock by the holder");
        equal(await attempt(), true, "the lock when it is free");
        equal(await one(waiter, "SELECT pg_advisory_unlock($1)", [key]), true, "unlock by the second");
        await holder.query("SELECT pg_advisory_lock($1)", [key]);
      });
      await waiter.query("SET lock_timeout = '20s'");
      await waiter.query("SELECT pg_advisory_lock($1)", [key]); // released because its holder has gone
      equal(await one(waiter, "SELECT pg_advisory_unlock($1)", [key]), true, "unlock at the end");
    }),

  pools: async () => {
    const pool = new pg.Pool({ connectionString: URL, max: 5, connectionTimeoutMillis: 20000 });
    try {
      const results = await Promise.all(range(200).map((number) => one(pool, "SELECT $1::int", [number])));
      equal(results, range(200), "queries through a pool");
    } finally {
      await pool.end();
    }
  },
};

/** Settled once the last cancel request has been closed by the server: then it can hit nothing later. */
let cancelling = Promise.resolve();

function cancel(client, query) {
  const messenger = new pg.Client({ connectionString: URL });
  cancelling = once(messenger.connection, "end");
  messenger.cancel(client, query);
}

await run("node-postgres", cases);
