// What a request does with the snippet, over pgx.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

// SNIPPET

func main() {
	ctx := context.Background()
	writer, reader, key := os.Args[1], os.Args[2], os.Args[3]
	conn := connected(ctx, writer, "")
	if _, err := conn.Exec(ctx, "INSERT INTO visits VALUES ($1)", key); err != nil {
		log.Fatal(err)
	}
	token, err := current(ctx, conn)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("token", token)
	for _, request := range [][2]string{{"without", ""}, {"with", token}, {"refused", "no token; it's refused"}} {
		var visits int
		row := connected(ctx, reader, request[1]).QueryRow(ctx, "SELECT count(*) FROM visits WHERE key = $1", key)
		if err := row.Scan(&visits); err != nil {
			log.Fatal(err)
		}
		fmt.Println(request[0], visits)
	}
}

func connected(ctx context.Context, url, token string) *pgx.Conn {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		log.Fatal(err)
	}
	if err := present(ctx, conn, token); err != nil {
		log.Fatal(err)
	}
	return conn
}
