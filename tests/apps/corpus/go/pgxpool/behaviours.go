package main

import (
	"context"
	"log"
	"math/rand"
	"os"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

// behaviours are what healthy programs do that looks like a leak, by pattern.
func (s *store) behaviours() map[string]func() {
	ms := setting("CORPUS_EVERY")
	return map[string]func(){
		"steady":      func() {},
		"rotation":    func() {},
		"warm_up":     func() {},
		"min_idle":    func() { every(4*ms, func() error { return s.burst(12) }) },
		"idle":        func() { log.Print(s.burst(9)) },
		"bursty":      func() { every(2*ms, func() error { return s.burst(1 + rand.Intn(25)) }) },
		"per_request": func() { every(ms/3, s.perRequest) },
		"listen":      s.listen,
		"copy":        func() { every(ms, s.slowCopy) },
		"slow_cursor": func() { every(ms, s.slowCursor) },
		"two_pools":   s.twoPools,
		"cancelled":   func() { every(ms/2, s.cancelled) },
	}
}

// burst uses n connections at once and gives them all back.
func (s *store) burst(n int) error {
	var held []*pgxpool.Conn
	defer func() {
		for _, conn := range held {
			conn.Release()
		}
	}()
	for i := 0; i < n; i++ {
		conn, err := s.pool.Acquire(context.Background())
		if err != nil {
			return err
		}
		held = append(held, conn)
		if err := conn.Ping(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// perRequest connects, asks and closes.
func (s *store) perRequest() error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn(os.Getenv("PGPORT")))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}

// listen waits for notifications that hardly ever come, on a connection out of the pool.
func (s *store) listen() {
	ctx := context.Background()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "listen orders"); err != nil {
		log.Fatal(err)
	}
	for {
		if _, err := conn.Conn().WaitForNotification(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

// slowRows come slowly.
type slowRows struct{ left int }

func (r *slowRows) Next() bool {
	if r.left%500 == 0 {
		time.Sleep(jitter(1000))
	}
	r.left--
	return r.left > 0
}

func (r *slowRows) Values() ([]interface{}, error) {
	return []interface{}{"a customer with a long name, so that buffers fill", int64(r.left)}, nil
}

func (r *slowRows) Err() error { return nil }

// slowCopy streams rows in as they come.
func (s *store) slowCopy() error {
	_, err := s.pool.CopyFrom(context.Background(), pgx.Identifier{"imported"}, []string{"customer", "cents"}, &slowRows{6000})
	return err
}

// slowCursor reads a page every now and then, in one long transaction.
func (s *store) slowCursor() error {
	ctx := context.Background()
	return s.pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `declare slow cursor for select id from orders`); err != nil {
			return err
		}
		for page := 0; page < 10; page++ {
			if _, err := tx.Exec(ctx, `fetch 20 from slow`); err != nil {
				return err
			}
			time.Sleep(jitter(1500))
		}
		return nil
	})
}

// twoPools has a second pool for the same database, which rests while the first grows and shrinks.
func (s *store) twoPools() {
	other := &store{pool: openPool(func(*pgxpool.Config) {})}
	log.Print(other.burst(8))
	for n := 1; ; n++ {
		if err := s.burst(2 + n%15); err != nil {
			log.Print(err)
		}
		time.Sleep(jitter(setting("CORPUS_EVERY")))
	}
}

// cancelled gives up on requests that take too long; pgx then closes the connection.
func (s *store) cancelled() error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := s.pool.Exec(ctx, `select pg_sleep(30)`)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
