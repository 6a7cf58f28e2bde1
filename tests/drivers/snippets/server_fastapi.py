"""The snippet's application with two routes, served on the port that is given."""

import sys

import uvicorn

# SNIPPET


@app.post("/visits/{key}")
async def add(key: str, request: Request):
    await request.state.connection.execute("INSERT INTO visits VALUES (%s)", (key,))


@app.get("/visits/{key}")
async def count(key: str, request: Request):
    cursor = await request.state.connection.execute("SELECT count(*) FROM visits WHERE key = %s", (key,))
    return (await cursor.fetchone())[0]


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
