// A shop's back office on pgx and its own pool, pgxpool.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v4/pgxpool"
)

// enough is not 0 when the program has been told to lose no more connections.
var enough int32

// setting reads a whole number from the environment.
func setting(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return n
}

// dsn names the server; everything but its port comes from libpq's own variables.
func dsn(port string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%s", port)
}

// openPool opens a pool that changes as it is told.
func openPool(change func(*pgxpool.Config)) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(dsn(os.Getenv("PGPORT")))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = int32(setting("CORPUS_POOL"))
	change(config)
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	return pool
}

// jitter varies a pause by a third to either side.
func jitter(ms int) time.Duration {
	return time.Duration(float64(ms)*(0.67+0.66*rand.Float64())) * time.Millisecond
}

// leaked tells the test that a connection is gone; its port is 0 where it is not known.
func leaked(port int) {
	fmt.Printf("leak %d %d\n", time.Now().UnixMilli(), port)
}

// every calls do for ever, with pauses.
func every(ms int, do func() error) {
	for {
		if err := do(); err != nil {
			log.Print(err)
		}
		time.Sleep(jitter(ms))
	}
}

func main() {
	rand.Seed(time.Now().UnixNano())
	pattern := os.Args[1]
	s := &store{pool: openPool(func(config *pgxpool.Config) {
		switch pattern {
		case "rotation":
			config.MaxConnLifetime = 4 * time.Second
			config.MinConns = 6
			config.HealthCheckPeriod = time.Second
		case "min_idle":
			config.MinConns = 10
			config.MaxConnIdleTime = 8 * time.Second
			config.HealthCheckPeriod = time.Second
		case "warm_up":
			config.MinConns = 50
			config.MaxConns = 60
		}
	})}
	leak, leaks := s.leaks()[pattern]
	behave, behaves := s.behaviours()[pattern]
	if !leaks && !behaves {
		log.Fatalf("unknown pattern %s", pattern)
	}
	if pattern != "idle" {
		for i := 0; i < 3; i++ {
			go every(setting("CORPUS_LOAD"), s.serve)
		}
	}
	fmt.Println("ready")
	commands := bufio.NewScanner(os.Stdin)
	commands.Scan()
	if leaks {
		go every(setting("CORPUS_EVERY"), func() error {
			if atomic.LoadInt32(&enough) != 0 {
				return nil
			}
			return leak()
		})
	} else {
		go behave()
	}
	for commands.Scan() {
		atomic.StoreInt32(&enough, 1)
	}
}
