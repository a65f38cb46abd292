package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"time"
)

// visitor is one kind of request and how often it comes. Most of them succeed; the two that do
// not are the ones that leak.
type visitor struct {
	every   time.Duration
	request func(base string, n int) (*http.Response, error)
}

var visitors = []visitor{
	{100 * time.Millisecond, func(base string, _ int) (*http.Response, error) {
		return http.Get(base + "/orders")
	}},
	{150 * time.Millisecond, func(base string, n int) (*http.Response, error) {
		return http.PostForm(base+"/orders", url.Values{
			"customer": {fmt.Sprintf("customer-%d", n%20)}, "sku": {fmt.Sprintf("SKU-%d", n%50+1)}})
	}},
	{250 * time.Millisecond, func(base string, n int) (*http.Response, error) {
		return http.PostForm(base+"/reservations", url.Values{"sku": {fmt.Sprintf("SKU-%d", n%50+1)}})
	}},
	{500 * time.Millisecond, func(base string, n int) (*http.Response, error) {
		return http.Get(fmt.Sprintf("%s/invoices.csv?customer=customer-%d", base, n%20))
	}},
	{1500 * time.Millisecond, func(base string, _ int) (*http.Response, error) {
		return http.PostForm(base+"/reservations", url.Values{"sku": {"SKU-0"}})
	}},
	{1900 * time.Millisecond, func(base string, _ int) (*http.Response, error) {
		return http.Get(base + "/invoices.csv?customer=imported")
	}},
}

// generateLoad sends every kind of request at its own pace, for ever.
func generateLoad(base string) {
	for _, v := range visitors {
		go func(v visitor) {
			ticker := time.NewTicker(v.every)
			for n := 0; ; n++ {
				<-ticker.C
				response, err := v.request(base, n)
				if err != nil {
					log.Print(err)
					continue
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		}(v)
	}
}
