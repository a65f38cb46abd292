package main

import (
	"context"
	"errors"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var errBad = errors.New("order without a customer")

// store is everything the back office knows about its tables.
type store struct {
	pool *pgxpool.Pool
	lost []interface{}
}

// limited is a context for one request.
func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}

// serve handles one ordinary request.
func (s *store) serve() error {
	if rand.Intn(3) == 0 {
		return s.placeOrder("customer-7", rand.Intn(5000))
	}
	return s.listOrders(20)
}

func (s *store) listOrders(limit int) error {
	ctx, cancel := limited()
	defer cancel()
	rows, err := s.pool.Query(ctx, `select id, customer from orders order by id desc limit $1`, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var customer string
		if err := rows.Scan(&id, &customer); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (s *store) placeOrder(customer string, cents int) error {
	ctx, cancel := limited()
	defer cancel()
	return s.pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		var stock int
		if err := tx.QueryRow(ctx, `select count(*) from orders where cents > $1`, cents).Scan(&stock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into orders (customer, cents) values ($1, $2)`, customer, cents)
		return err
	})
}

// leaks are the handlers that lose connections, by pattern.
func (s *store) leaks() map[string]func() error {
	calls := 0
	return map[string]func() error{
		"rows":                   s.exportInvoices,
		"transaction":            s.reserveStock,
		"failed_transaction":     s.applyCoupon,
		"not_returned":           s.customerReport,
		"pool_per_request":       s.monthlyStatement,
		"connection_per_request": s.syncInventory,
		"cursor":                 s.browseCatalogue,
		"lost_task":              s.sendReceipts,
		"stuck":                  func() error { go s.chargeCard(); return nil },
		"connect_hang":           func() error { go s.queryWarehouse(); return nil },
		"error_path":             func() error { calls++; return s.importOrder(calls%3 == 0) },
		"rare": func() error {
			for i := 1; i <= 1000; i++ {
				if err := s.syncPrices(i == 1000); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// exportInvoices stops at the first row that it dislikes, and leaves the rest unread.
func (s *store) exportInvoices() error {
	rows, err := s.pool.Query(context.Background(), `select inet_client_port(), id, note from orders, generate_series(1, 20)`)
	if err != nil {
		return err
	}
	for rows.Next() {
		var port, id int
		var note *string
		if err := rows.Scan(&port, &id, &note); err != nil {
			return err
		}
		if note == nil {
			leaked(port)
			return errBad
		}
	}
	return rows.Err()
}

// reserveStock forgets its transaction where there is nothing to reserve.
func (s *store) reserveStock() error {
	ctx := context.Background()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	var port, available int
	if err := tx.QueryRow(ctx, `select inet_client_port(), 0 from orders limit 1`).Scan(&port, &available); err != nil {
		return err
	}
	if available == 0 {
		leaked(port)
		return errors.New("out of stock")
	}
	return tx.Commit(ctx)
}

// applyCoupon does not roll back after its statement has failed.
func (s *store) applyCoupon() error {
	ctx := context.Background()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	var port int
	if err := tx.QueryRow(ctx, `select inet_client_port()`).Scan(&port); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update orders set cents = cents / 0 where id = 1`); err != nil {
		leaked(port)
		return err
	}
	return tx.Commit(ctx)
}

// customerReport never releases its connection.
func (s *store) customerReport() error {
	ctx, cancel := limited()
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	var port, count int
	if err := conn.QueryRow(ctx, `select inet_client_port(), count(*) from orders`).Scan(&port, &count); err != nil {
		return err
	}
	leaked(port)
	return nil
}

// importOrder gives its connection back, unless the order is bad.
func (s *store) importOrder(bad bool) error {
	ctx, cancel := limited()
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	var port int
	if err := conn.QueryRow(ctx, `select inet_client_port() from orders limit 1`).Scan(&port); err != nil {
		return err
	}
	if bad {
		leaked(port)
		return errBad
	}
	conn.Release()
	return nil
}

// syncPrices loses one connection in a thousand.
func (s *store) syncPrices(unlucky bool) error {
	ctx, cancel := limited()
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	var port int
	if err := conn.QueryRow(ctx, `select inet_client_port()`).Scan(&port); err != nil {
		return err
	}
	if unlucky {
		leaked(port)
		return nil
	}
	conn.Release()
	return nil
}

// monthlyStatement opens a pool of its own each time.
func (s *store) monthlyStatement() error {
	pool := openPool(func(config *pgxpool.Config) { config.MaxConns = 4 })
	s.lost = append(s.lost, pool)
	var port, count int
	err := pool.QueryRow(context.Background(), `select inet_client_port(), count(*) from orders`).Scan(&port, &count)
	if err != nil {
		return err
	}
	leaked(port)
	return nil
}

// syncInventory opens a connection each time and never closes it.
func (s *store) syncInventory() error {
	conn, err := pgx.Connect(context.Background(), dsn(os.Getenv("PGPORT")))
	if err != nil {
		return err
	}
	s.lost = append(s.lost, conn)
	var port, count int
	err = conn.QueryRow(context.Background(), `select inet_client_port(), count(*) from orders`).Scan(&port, &count)
	if err != nil {
		return err
	}
	leaked(port)
	return nil
}

// browseCatalogue reads a cursor's first page and forgets the rest.
func (s *store) browseCatalogue() error {
	ctx := context.Background()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `declare page cursor for select inet_client_port() from orders`); err != nil {
		return err
	}
	var port int
	if err := tx.QueryRow(ctx, `fetch 1 from page`).Scan(&port); err != nil {
		return err
	}
	leaked(port)
	return nil
}

// sendReceipts leaves a goroutine behind that waits for ever, holding its connection.
func (s *store) sendReceipts() error {
	printed := make(chan int)
	go func() {
		conn, err := s.pool.Acquire(context.Background())
		if err != nil {
			log.Print(err)
			return
		}
		defer conn.Release()
		var port int
		if err := conn.QueryRow(context.Background(), `select inet_client_port()`).Scan(&port); err != nil {
			log.Print(err)
			return
		}
		leaked(port)
		log.Print(<-printed)
	}()
	return nil
}

// chargeCard holds its connection while it waits for somebody who never answers.
func (s *store) chargeCard() error {
	conn, err := s.pool.Acquire(context.Background())
	if err != nil {
		return err
	}
	defer conn.Release()
	var port int
	if err := conn.QueryRow(context.Background(), `select inet_client_port() from orders limit 1`).Scan(&port); err != nil {
		return err
	}
	provider, err := net.DialTimeout("tcp", "127.0.0.1:"+os.Getenv("CORPUS_HOLE"), time.Second)
	if err != nil {
		return err
	}
	defer provider.Close()
	leaked(port)
	_, err = io.ReadAll(provider)
	return err
}

// queryWarehouse asks a server that accepts and says nothing.
func (s *store) queryWarehouse() error {
	leaked(0)
	_, err := pgx.Connect(context.Background(), dsn(os.Getenv("CORPUS_HOLE")))
	return err
}
