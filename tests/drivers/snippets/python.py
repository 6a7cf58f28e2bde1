"""What a request does with the snippet, over psycopg."""

import sys

import psycopg

# SNIPPET


def connect(url):
    return psycopg.connect(url, autocommit=True)


writer, reader, key = sys.argv[1:]
with connect(writer) as connection:
    present(connection, "")
    connection.execute("INSERT INTO visits VALUES (%s)", (key,))
    token = current(connection)
print("token", token)
for name, carried in (("without", ""), ("with", token), ("refused", "no token; it's refused")):
    with connect(reader) as connection:
        present(connection, carried)
        print(name, connection.execute("SELECT count(*) FROM visits WHERE key = %s", (key,)).fetchone()[0])
