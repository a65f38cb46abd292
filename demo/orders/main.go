// Orders is a small order service in front of PostgreSQL, with two leaks that reviews miss.
//
// It serves HTTP on a free loopback port and sends itself the traffic of a quiet shop. It is what
// `cargo xtask demo` traces.
package main

import (
	"database/sql"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	_ "github.com/lib/pq"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("orders: ")

	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(90)
	db.SetMaxIdleConns(5)
	if err := db.Ping(); err != nil {
		log.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	base := "http://" + listener.Addr().String()
	log.Printf("pid %d serves %s", os.Getpid(), base)

	server := &http.Server{Handler: routes(&store{db}), ReadHeaderTimeout: 5 * time.Second}
	go generateLoad(base)
	log.Fatal(server.Serve(listener))
}
