// What a request does with the snippet, over node-postgres.

import pg from "pg";

// SNIPPET

async function connected(url, use) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

const [writer, reader, key] = process.argv.slice(2);
const token = await connected(writer, async (client) => {
  await present(client, "");
  await client.query("INSERT INTO visits VALUES ($1)", [key]);
  return current(client);
});
console.log("token", token);
for (const [name, carried] of [["without", ""], ["with", token], ["refused", "no token; it's refused"]]) {
  await connected(reader, async (client) => {
    await present(client, carried);
    const { rows } = await client.query("SELECT count(*) FROM visits WHERE key = $1", [key]);
    console.log(name, rows[0].count);
  });
}
