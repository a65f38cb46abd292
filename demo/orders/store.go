package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
)

var (
	errOutOfStock = errors.New("out of stock")
	errNoCurrency = errors.New("invoice without a currency")
)

// store is everything the service knows about its tables.
type store struct {
	db *sql.DB
}

type order struct {
	ID       int64  `json:"id"`
	Customer string `json:"customer"`
}

// listOrders returns the latest orders, newest first.
func (s *store) listOrders(limit int) ([]order, error) {
	rows, err := s.db.Query(`select id, customer from orders order by id desc limit $1`, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var orders []order
	for rows.Next() {
		var o order
		if err := rows.Scan(&o.ID, &o.Customer); err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

// placeOrder records an order of one article.
func (s *store) placeOrder(customer, sku string, quantity int) (int64, error) {
	tx, err := s.db.Begin()
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	var id int64
	err = tx.QueryRow(`insert into orders (customer) values ($1) returning id`, customer).Scan(&id)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(`insert into order_items values ($1, $2, $3)`, id, sku, quantity)
	if err != nil {
		return 0, err
	}
	return id, tx.Commit()
}

// reserveStock takes articles off the shelf, or fails when there are too few.
func (s *store) reserveStock(sku string, quantity int) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	var available int
	err = tx.QueryRow(`select quantity from stock where sku = $1`, sku).Scan(&available)
	if err != nil {
		tx.Rollback()
		return err
	}
	if available < quantity {
		return fmt.Errorf("%w: %s, %d left", errOutOfStock, sku, available)
	}
	_, err = tx.Exec(`update stock set quantity = quantity - $2 where sku = $1`, sku, quantity)
	if err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

// exportInvoices writes a customer's invoices as CSV.
func (s *store) exportInvoices(w io.Writer, customer string) error {
	rows, err := s.db.Query(
		`select id, cents, currency, note from invoices where customer = $1 order by id`, customer)
	if err != nil {
		return err
	}
	for rows.Next() {
		var id, cents int64
		var currency sql.NullString
		var note string
		if err := rows.Scan(&id, &cents, &currency, &note); err != nil {
			return err
		}
		if !currency.Valid {
			return fmt.Errorf("%w: %d", errNoCurrency, id)
		}
		fmt.Fprintf(w, "%d,%d.%02d,%s,%q\n", id, cents/100, cents%100, currency.String, note)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}
