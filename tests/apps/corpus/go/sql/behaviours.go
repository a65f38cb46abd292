package main

import (
	"context"
	"database/sql"
	"log"
	"math/rand"
	"os"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/lib/pq"
)

// behaviours are what healthy programs do that looks like a leak, by pattern.
func (s *store) behaviours() map[string]func() {
	ms := setting("CORPUS_EVERY")
	return map[string]func(){
		"steady":      func() {},
		"idle":        func() { s.db.SetMaxIdleConns(20); log.Print(s.burst(9)) },
		"warm_up":     func() { s.db.SetMaxIdleConns(50); s.db.SetMaxOpenConns(60); log.Print(s.burst(50)) },
		"bursty":      func() { s.db.SetMaxIdleConns(30); every(2*ms, func() error { return s.burst(1 + rand.Intn(25)) }) },
		"rotation":    s.rotate,
		"per_request": func() { every(ms/3, s.perRequest) },
		"listen":      s.listen,
		"long_report": func() { every(ms, s.longReport) },
		"slow_cursor": func() { every(ms, s.slowCursor) },
		"copy":        func() { every(ms, s.slowCopy) },
		"two_pools":   s.twoPools,
		"cancelled":   func() { every(ms/2, s.cancelled) },
		"keepalive":   s.keepalive,
		"worker_owned": func() {
			for i := 0; i < 8; i++ {
				go s.ownConnection()
				time.Sleep(jitter(ms))
			}
		},
	}
}

// rotate limits how long connections live, under a load that needs several of them.
func (s *store) rotate() {
	s.db.SetConnMaxLifetime(3 * time.Second)
	s.db.SetMaxIdleConns(8)
	every(setting("CORPUS_LOAD"), func() error { return s.burst(1 + rand.Intn(8)) })
}

// perRequest opens a pool for one request, and closes it.
func (s *store) perRequest() error {
	db := openPool()
	defer db.Close()
	return (&store{db: db}).listOrders(5)
}

// listen waits for notifications that hardly ever come.
func (s *store) listen() {
	if os.Getenv("CORPUS_DRIVER") == "postgres" {
		listener := pq.NewListener(dsn(os.Getenv("PGPORT")), time.Second, time.Minute, nil)
		if err := listener.Listen("orders"); err != nil {
			log.Fatal(err)
		}
		for range listener.Notify {
		}
	}
	conn, err := pgx.Connect(context.Background(), dsn(os.Getenv("PGPORT")))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), "listen orders"); err != nil {
		log.Fatal(err)
	}
	for {
		if _, err := conn.WaitForNotification(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
}

// longReport keeps the server busy for longer than counts as silent.
func (s *store) longReport() error {
	_, err := s.db.Exec(`select pg_sleep(9 + 5 * random())`)
	return err
}

// slowCursor reads a page every now and then, in one long transaction.
func (s *store) slowCursor() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`declare slow cursor for select id from orders`); err != nil {
		return err
	}
	for page := 0; page < 10; page++ {
		if _, err := tx.Exec(`fetch 20 from slow`); err != nil {
			return err
		}
		time.Sleep(jitter(1500))
	}
	return tx.Commit()
}

// slowCopy streams rows in as they come.
func (s *store) slowCopy() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	statement, err := tx.Prepare(pq.CopyIn("imported", "customer", "cents"))
	if err != nil {
		return err
	}
	for i := 0; i < 8; i++ {
		for row := 0; row < 2000; row++ {
			if _, err := statement.Exec("a customer with a long name, so that buffers fill", row); err != nil {
				return err
			}
		}
		time.Sleep(jitter(1200))
	}
	if _, err := statement.Exec(); err != nil {
		return err
	}
	return tx.Commit()
}

// twoPools has a second pool for the same database, which rests while the first grows and shrinks.
func (s *store) twoPools() {
	other := &store{db: openPool()}
	other.db.SetMaxIdleConns(10)
	log.Print(other.burst(8))
	s.db.SetMaxIdleConns(30)
	for n := 1; ; n++ {
		if err := s.burst(2 + n%15); err != nil {
			log.Print(err)
		}
		time.Sleep(jitter(setting("CORPUS_EVERY")))
	}
}

// cancelled gives up on requests that take too long.
func (s *store) cancelled() error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := s.db.ExecContext(ctx, `select pg_sleep(30)`)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// keepalive pings what idles in the pool, all of it at once.
func (s *store) keepalive() {
	s.db.SetMaxIdleConns(8)
	every(2500, func() error { return s.burst(8) })
}

// ownConnection is a worker with a connection of its own and little to do.
func (s *store) ownConnection() {
	var conn *sql.Conn
	for {
		if conn == nil {
			var err error
			if conn, err = s.holder(); err != nil {
				log.Print(err)
			}
		} else if err := look(conn); err != nil {
			log.Print(err)
		}
		time.Sleep(time.Duration(2000+rand.Intn(10000)) * time.Millisecond)
	}
}
