// Sessions in each state, by database/sql: one command a line on stdin, one answer a line. `states`
// says where each session is by the server's word, with its local port.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"

	_ "github.com/jackc/pgx/v4/stdlib"
	_ "github.com/lib/pq"
)

var (
	background = context.Background()
	sessions   []*sql.Conn
	ports      []string
	witness    *sql.DB
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// run ignores errors: one of the sessions is to be in a failed transaction.
func run(session *sql.Conn, statement string) {
	session.ExecContext(background, statement)
}

func takeSessions(db *sql.DB) {
	for _, statements := range []string{"SELECT 1", "BEGIN", "BEGIN;SELECT 1 / 0"} {
		session, err := db.Conn(background)
		check(err)
		var port string
		check(session.QueryRowContext(background, "SELECT inet_client_port()::text").Scan(&port))
		sessions, ports = append(sessions, session), append(ports, port)
		for _, statement := range strings.Split(statements, ";") {
			run(session, statement)
		}
	}
}

func state(port string) string {
	var state string
	row := witness.QueryRow("SELECT state FROM pg_stat_activity WHERE client_port = " + port)
	check(row.Scan(&state))
	switch state {
	case "idle in transaction":
		return "in_transaction"
	case "idle in transaction (aborted)":
		return "failed_transaction"
	}
	return state
}

func main() {
	driver, server := os.Args[1], "host=%s port=%s user=%s dbname=postgres sslmode=%s"
	host, port, user, sslmode := os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	db, err := sql.Open(driver, fmt.Sprintf(server, host, port, user, sslmode))
	check(err)
	witness, err = sql.Open(driver, fmt.Sprintf(server, host, port, user, sslmode))
	check(err)
	witness.SetMaxIdleConns(0)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := "ok"
		switch lines.Text() {
		case "open":
			takeSessions(db)
		case "touch":
			for _, session := range sessions {
				run(session, "SELECT 1")
			}
		case "turn":
			for i, statement := range []string{"BEGIN", "COMMIT", "ROLLBACK"} {
				run(sessions[i], statement)
			}
		case "states":
			for _, port := range ports {
				answer += " " + port + "=" + state(port)
			}
		}
		fmt.Println(answer)
	}
}
