//go:build go1.23

package main

import "slices"

func init() {
	shapes["range"] = func(call func()) {
		for range slices.Values([]int{1}) {
			call()
		}
	}
}
