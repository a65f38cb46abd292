// A pool of two connections, by database/sql: one command a line on stdin, one answer a line.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	_ "github.com/lib/pq"
)

var pool *sql.DB

//go:noinline
func take() *sql.Conn {
	conn, err := pool.Conn(context.Background())
	if err != nil {
		panic(err)
	}
	return conn
}

// Forgets to return its connection.
//
//go:noinline
func lose(done chan<- bool) {
	conn := take()
	var one int
	conn.QueryRowContext(context.Background(), "SELECT 1").Scan(&one)
	done <- true
}

// Returns its connection.
//
//go:noinline
func serve(done chan<- bool) {
	var one int
	pool.QueryRow("SELECT 1").Scan(&one)
	done <- true
}

// Keeps its connection while something else takes long.
//
//go:noinline
func hold(done chan<- bool) {
	conn := take()
	defer conn.Close()
	var one int
	conn.QueryRowContext(context.Background(), "SELECT 1").Scan(&one)
	done <- true
	time.Sleep(time.Hour)
}

// Waits for a connection.
//
//go:noinline
func checkout(done chan<- bool) {
	done <- true
	take()
}

func main() {
	var err error
	const server = "host=%s port=%s user=%s sslmode=disable dbname=postgres"
	pool, err = sql.Open("postgres", fmt.Sprintf(server, os.Args[1], os.Args[2], os.Args[3]))
	if err != nil {
		panic(err)
	}
	pool.SetMaxOpenConns(2)
	work := map[string]func(chan<- bool){"serve": serve, "lose": lose, "hold": hold, "wait": checkout}
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		if begin := work[commands.Text()]; begin != nil {
			done := make(chan bool)
			go begin(done)
			<-done
		}
		// Nobody is ever served, so all who have waited wait still.
		fmt.Printf("ok waiting=%d\n", pool.Stats().WaitCount)
	}
}
