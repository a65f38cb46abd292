package main

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/lib/pq"
)

// leaks are the handlers that lose connections, by pattern.
func (s *store) leaks() map[string]func() error {
	calls := 0
	return map[string]func() error{
		"rows":               s.exportInvoices,
		"transaction":        s.reserveStock,
		"failed_transaction": s.applyCoupon,
		"not_returned":       s.customerReport,
		"pool_per_request":   s.monthlyStatement,
		"cursor":             s.browseCatalogue,
		"copy_open":          s.bulkImport,
		"lost_task":          s.sendReceipts,
		"stuck":              func() error { go s.chargeCard(); return nil },
		"connect_hang":       func() error { go s.queryWarehouse(); return nil },
		"error_path": func() error {
			calls++
			return s.importOrder(calls%3 == 0)
		},
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
	rows, err := s.db.Query(`select inet_client_port(), id, note from orders, generate_series(1, 20)`)
	if err != nil {
		return err
	}
	for rows.Next() {
		var port, id int
		var note sql.NullString
		if err := rows.Scan(&port, &id, &note); err != nil {
			return err
		}
		leaked(port)
		return errors.New("invoice without a note")
	}
	return rows.Close()
}

// reserveStock forgets its transaction where there is nothing to reserve.
func (s *store) reserveStock() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	var port, available int
	err = tx.QueryRow(`select inet_client_port(), 0 from orders limit 1`).Scan(&port, &available)
	if err != nil {
		tx.Rollback()
		return err
	}
	if available == 0 {
		leaked(port)
		return errors.New("out of stock")
	}
	return tx.Commit()
}

// applyCoupon does not roll back after its statement has failed.
func (s *store) applyCoupon() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	var port int
	if err := tx.QueryRow(`select inet_client_port()`).Scan(&port); err != nil {
		tx.Rollback()
		return err
	}
	if _, err := tx.Exec(`update orders set cents = cents / 0 where id = 1`); err != nil {
		leaked(port)
		return err
	}
	return tx.Commit()
}

// customerReport never closes its dedicated connection.
func (s *store) customerReport() error {
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		return err
	}
	var port, count int
	err = conn.QueryRowContext(context.Background(), `select inet_client_port(), count(*) from orders`).Scan(&port, &count)
	if err != nil {
		return err
	}
	leaked(port)
	return nil
}

// importOrder gives its connection back, unless the order is bad.
func (s *store) importOrder(bad bool) error {
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		return err
	}
	var port int
	row := conn.QueryRowContext(context.Background(), `select inet_client_port() from orders limit 1`)
	if err := row.Scan(&port); err != nil {
		return err
	}
	if bad {
		leaked(port)
		return errors.New("order without a customer")
	}
	return conn.Close()
}

// syncPrices loses one connection in a thousand.
func (s *store) syncPrices(unlucky bool) error {
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		return err
	}
	var port int
	if err := conn.QueryRowContext(context.Background(), `select inet_client_port()`).Scan(&port); err != nil {
		return err
	}
	if unlucky {
		leaked(port)
		return nil
	}
	return conn.Close()
}

// monthlyStatement opens a pool of its own each time.
func (s *store) monthlyStatement() error {
	db := openPool()
	var port, count int
	err := db.QueryRow(`select inet_client_port(), count(*) from orders`).Scan(&port, &count)
	if err != nil {
		return err
	}
	leaked(port)
	return nil
}

// browseCatalogue reads a cursor's first page and forgets the rest.
func (s *store) browseCatalogue() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`declare page cursor for select inet_client_port() from orders`); err != nil {
		tx.Rollback()
		return err
	}
	var port int
	if err := tx.QueryRow(`fetch 1 from page`).Scan(&port); err != nil {
		tx.Rollback()
		return err
	}
	leaked(port)
	return nil
}

// bulkImport begins a COPY, sends some rows and never ends it.
func (s *store) bulkImport() error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	var port int
	if err := tx.QueryRow(`select inet_client_port()`).Scan(&port); err != nil {
		tx.Rollback()
		return err
	}
	statement, err := tx.Prepare(pq.CopyIn("imported", "customer", "cents"))
	if err != nil {
		tx.Rollback()
		return err
	}
	for i := 0; i < 100; i++ {
		if _, err := statement.Exec("customer-1", i); err != nil {
			return err
		}
	}
	leaked(port)
	return nil
}

// sendReceipts leaves a goroutine behind that waits for ever, holding its connection.
func (s *store) sendReceipts() error {
	printed := make(chan int)
	go func() {
		conn, err := s.db.Conn(context.Background())
		if err != nil {
			log.Print(err)
			return
		}
		defer conn.Close()
		var port int
		row := conn.QueryRowContext(context.Background(), `select inet_client_port() from orders limit 1`)
		if err := row.Scan(&port); err != nil {
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
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close()
	var port int
	err = conn.QueryRowContext(context.Background(), `select inet_client_port() from orders limit 1`).Scan(&port)
	if err != nil {
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
	db, err := sql.Open(os.Getenv("CORPUS_DRIVER"), dsn(os.Getenv("CORPUS_HOLE")))
	if err != nil {
		return err
	}
	defer db.Close()
	leaked(0)
	return db.Ping()
}
