package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand"
)

// store is everything the back office knows about its tables.
type store struct {
	db *sql.DB
}

// serve handles one ordinary request.
func (s *store) serve() error {
	if rand.Intn(3) == 0 {
		return s.placeOrder("customer-7", rand.Intn(5000))
	}
	return s.listOrders(20)
}

func (s *store) listOrders(limit int) error {
	rows, err := s.db.Query(`select id, customer from orders order by id desc limit $1`, limit)
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
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var stock int
	if err := tx.QueryRow(`select count(*) from orders where cents > $1`, cents).Scan(&stock); err != nil {
		return err
	}
	if _, err := tx.Exec(`insert into orders (customer, cents) values ($1, $2)`, customer, cents); err != nil {
		return err
	}
	return tx.Commit()
}

// holder opens a connection of its own from the pool for a worker that keeps it.
func (s *store) holder() (*sql.Conn, error) {
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	if err := look(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// look is a small request on a connection that is already had.
func look(conn *sql.Conn) error {
	var n int
	return conn.QueryRowContext(context.Background(), `select count(*) from orders where cents < 100`).Scan(&n)
}

// burst uses n connections at once and gives them all back.
func (s *store) burst(n int) error {
	var held []*sql.Conn
	defer func() {
		for _, conn := range held {
			conn.Close()
		}
	}()
	for i := 0; i < n; i++ {
		conn, err := s.holder()
		if err != nil {
			return fmt.Errorf("burst of %d: %w", n, err)
		}
		held = append(held, conn)
	}
	return nil
}
