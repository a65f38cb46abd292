package main

import (
	"sort"
	"strings"
	"sync"
	"time"
)

// shapes are ways to call a function. Each leaves other marks on the stack.
var shapes = map[string]func(func()){
	"plain":         plain,
	"inlined":       func(call func()) { outerInlined(call) },
	"method":        func(call func()) { (&account{}).pay(call) },
	"value":         func(call func()) { pay := (&account{}).pay; pay(call) },
	"expression":    func(call func()) { pay := (*account).pay; pay(&account{}, call) },
	"interface":     func(call func()) { var p payer = wrapped{&account{}}; p.pay(call) },
	"closure":       closures,
	"deferred":      deferred,
	"panicking":     panicking,
	"generic":       func(call func()) { generic(map[string]int{"a": 1}, call) },
	"genericmethod": func(call func()) { (&list[account]{items: []account{{}}}).each(call) },
	"recursion":     func(call func()) { recurse(40, call) },
	"deep":          func(call func()) { recurse(400, call) },
	"goroutine":     goroutine,
	"timer":         timer,
	"once":          func(call func()) { new(sync.Once).Do(call) },
	"sort":          sorted,
	"fields":        func(call func()) { strings.FieldsFunc("x", func(rune) bool { call(); return true }) },
	"moved":         moved,
}

func by(shape string, call func()) {
	through, known := shapes[shape]
	if !known {
		panic(shape)
	}
	through(call)
}

//go:noinline
func plain(call func()) {
	call()
}

func outerInlined(call func()) { middleInlined(call, 1) }

func middleInlined(call func(), n int) {
	if n > 0 {
		innerInlined(call)
	}
}

func innerInlined(call func()) { call() }

type payer interface{ pay(func()) }

type account struct{ sum int }

//go:noinline
func (a *account) pay(call func()) {
	call()
	a.sum++
}

// wrapped has pay only by promotion, so that the compiler makes a wrapper.
type wrapped struct{ *account }

//go:noinline
func closures(call func()) {
	count := 0
	outer := func() {
		inner := func() {
			count++
			call()
		}
		inner()
		count++
	}
	outer()
}

//go:noinline
func deferred(call func()) {
	defer func() {
		call()
	}()
	defer plain(func() {})
}

//go:noinline
func panicking(call func()) {
	defer func() {
		_ = recover()
	}()
	defer func() {
		call()
	}()
	panic("on the way")
}

//go:noinline
func generic[K comparable, V any](all map[K]V, call func()) {
	for range all {
		call()
	}
}

type list[T any] struct{ items []T }

//go:noinline
func (l *list[T]) each(call func()) {
	for range l.items {
		call()
	}
}

// recurse takes some 300 bytes of stack for each level.
//
//go:noinline
func recurse(levels int, call func()) byte {
	var ballast [256]byte
	ballast[levels%256] = 1
	if levels == 0 {
		call()
	} else {
		ballast[0] += recurse(levels-1, call)
	}
	return ballast[levels%128]
}

//go:noinline
func goroutine(call func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	<-done
}

// timer runs the call in a goroutine that the library starts.
//
//go:noinline
func timer(call func()) {
	done := make(chan struct{})
	time.AfterFunc(time.Millisecond, func() {
		call()
		close(done)
	})
	<-done
}

//go:noinline
func sorted(call func()) {
	called := false
	sort.Slice([]int{2, 1}, func(i, j int) bool {
		if !called {
			called = true
			call()
		}
		return false
	})
}

// moved makes the goroutine's stack move before the call.
//
//go:noinline
func moved(call func()) {
	goroutine(func() {
		recurse(2000, func() {})
		call()
	})
}
