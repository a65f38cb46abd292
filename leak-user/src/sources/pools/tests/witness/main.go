// A program with a pool that tells, line by line, what the pool says of itself.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// The other file of the program has these, for a pool of its own.
type pool interface {
	stats() state
	take()
	give()
	limit(int)
	// Makes as many callers wait.
	wait(int)
	// As many callers give up.
	cancel(int)
	prepare()
	inodes() []uint64
}

type state struct {
	From, To                                     int64 // nanoseconds: true from the one until the other
	Open, InUse, Idle, Max, WaitCount, WaitNanos int64
	Taken                                        []uint64 `json:",omitempty"` // inodes
}

var (
	db  pool
	ctx = context.Background()
)

func now() int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

func inode(conn net.Conn) (inode uint64) {
	file, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		panic(err)
	}
	file.Control(func(fd uintptr) {
		var stat syscall.Stat_t
		syscall.Fstat(int(fd), &stat)
		inode = stat.Ino
	})
	return
}

// Takes and gives back at random, and keeps each state with the time in which it was true.
func load(length time.Duration) []state {
	var states []state
	until := now() + length.Nanoseconds()
	// Nobody has changed anything yet.
	current := db.stats()
	for now() < until {
		next := now()
		if current.InUse < current.Max && (current.InUse == 0 || rand.Intn(2) == 0) {
			db.take()
		} else {
			db.give()
		}
		current.To = now()
		states = append(states, current)
		current = db.stats()
		current.From = next
	}
	current.To = now() + int64(time.Hour)
	return append(states, current)
}

func main() {
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() {
		for {
			conn, err := listener.Accept()
			if err == nil {
				go serve(conn)
			}
		}
	}()
	db = open(listener.Addr().String())
	var parked sync.WaitGroup
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		number := 0
		if len(words) > 1 {
			number, _ = strconv.Atoi(words[1])
		}
		switch words[0] {
		case "take":
			for i := 0; i < number; i++ {
				db.take()
			}
		case "give":
			for i := 0; i < number; i++ {
				db.give()
			}
		case "limit":
			db.limit(number)
		case "wait":
			db.wait(number)
		case "cancel":
			db.cancel(number)
		case "park":
			parked.Add(number)
			for i := 0; i < number; i++ {
				go func() { parked.Done(); time.Sleep(time.Hour) }()
			}
			parked.Wait()
		case "prepare":
			db.prepare()
		case "load":
			for _, one := range load(time.Duration(number) * time.Millisecond) {
				out.Encode(one)
			}
			fmt.Println("end")
			continue
		}
		answer := db.stats()
		answer.Taken = db.inodes()
		out.Encode(answer)
	}
}
