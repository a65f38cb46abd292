package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
)

// routes maps the service's paths to the store.
func routes(s *store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			id, err := s.placeOrder(r.FormValue("customer"), r.FormValue("sku"), 1)
			respond(w, id, err)
			return
		}
		orders, err := s.listOrders(20)
		respond(w, orders, err)
	})
	mux.HandleFunc("/reservations", func(w http.ResponseWriter, r *http.Request) {
		respond(w, "reserved", s.reserveStock(r.FormValue("sku"), 1))
	})
	mux.HandleFunc("/invoices.csv", func(w http.ResponseWriter, r *http.Request) {
		var csv bytes.Buffer
		if err := s.exportInvoices(&csv, r.FormValue("customer")); err != nil {
			respond(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", "text/csv")
		w.Write(csv.Bytes())
	})
	return mux
}

// respond writes the answer, or the error with a status that fits.
func respond(w http.ResponseWriter, answer any, err error) {
	switch {
	case errors.Is(err, errOutOfStock):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		json.NewEncoder(w).Encode(answer)
	}
}
