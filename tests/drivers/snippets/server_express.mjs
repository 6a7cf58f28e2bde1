// The snippet's application with two routes, served on the port that is given.

// SNIPPET

app.post("/visits/:key", withDatabase(async (client, request) => {
  await client.query("INSERT INTO visits VALUES ($1)", [request.params.key]);
}));

app.get("/visits/:key", withDatabase(async (client, request) => {
  const { rows } = await client.query("SELECT count(*)::int FROM visits WHERE key = $1", [request.params.key]);
  return rows[0].count;
}));

app.listen(Number(process.argv[2]), "127.0.0.1");
