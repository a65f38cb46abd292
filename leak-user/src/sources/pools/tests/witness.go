// A program with a sql.DB that tells, line by line, what its own db.Stats() says.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"io"
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

type connector struct{ address string }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := net.Dial("tcp", c.address)
	return &connection{conn, 0}, err
}

func (c connector) Driver() driver.Driver { return nil }

// As drivers do, it begins with what it sends on.
type connection struct {
	net net.Conn
	n   int
}

type statement struct{ connection *connection }

func (c *connection) Prepare(string) (driver.Stmt, error) { return statement{c}, nil }
func (c *connection) Close() error                        { return c.net.Close() }
func (c *connection) Begin() (driver.Tx, error)           { return nil, io.EOF }

func (s statement) Close() error                               { return nil }
func (s statement) NumInput() int                              { return 0 }
func (s statement) Exec([]driver.Value) (driver.Result, error) { return driver.ResultNoRows, nil }
func (s statement) Query([]driver.Value) (driver.Rows, error)  { return nil, io.EOF }

type state struct {
	From, To                                        int64 // nanoseconds: true from the one until the other
	Open, InUse, Idle, Max, WaitCount, WaitNanos    int64
	Taken, Free                                     []uint64 `json:",omitempty"` // inodes
}

var (
	db    *sql.DB
	taken []*sql.Conn
	ctx   = context.Background()
)

func now() int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

func stats() state {
	s := db.Stats()
	return state{
		Open: int64(s.OpenConnections), InUse: int64(s.InUse), Idle: int64(s.Idle),
		Max: int64(s.MaxOpenConnections), WaitCount: s.WaitCount, WaitNanos: int64(s.WaitDuration),
	}
}

func take() {
	conn, err := db.Conn(ctx)
	if err != nil {
		panic(err)
	}
	taken = append(taken, conn)
}

func give() {
	last := len(taken) - 1
	taken[last].Close()
	taken = taken[:last]
}

func inode(conn *sql.Conn) (inode uint64) {
	conn.Raw(func(raw interface{}) error {
		tcp := raw.(*connection).net.(*net.TCPConn)
		file, err := tcp.SyscallConn()
		if err != nil {
			return err
		}
		return file.Control(func(fd uintptr) {
			var stat syscall.Stat_t
			syscall.Fstat(int(fd), &stat)
			inode = stat.Ino
		})
	})
	return
}

// Takes and gives back at random, and keeps each state with the time in which it was true.
func load(length time.Duration) []state {
	var states []state
	until := now() + length.Nanoseconds()
	// Nobody has changed anything yet.
	current := stats()
	for now() < until {
		next := now()
		if current.InUse < current.Max && (current.InUse == 0 || rand.Intn(2) == 0) {
			take()
		} else {
			give()
		}
		current.To = now()
		states = append(states, current)
		current = stats()
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
				go io.Copy(conn, conn)
			}
		}
	}()
	db = sql.OpenDB(connector{listener.Addr().String()})
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(8)
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
				take()
			}
		case "give":
			for i := 0; i < number; i++ {
				give()
			}
		case "limit":
			db.SetMaxOpenConns(number)
		case "wait":
			before := db.Stats().WaitCount
			for i := 0; i < number; i++ {
				go func() {
					if conn, err := db.Conn(ctx); err == nil {
						time.Sleep(time.Hour)
						conn.Close()
					}
				}()
			}
			for db.Stats().WaitCount < before+int64(number) {
				time.Sleep(time.Millisecond)
			}
		case "park":
			parked.Add(number)
			for i := 0; i < number; i++ {
				go func() { parked.Done(); time.Sleep(time.Hour) }()
			}
			parked.Wait()
		case "prepare":
			db.Prepare("")
		case "load":
			for _, one := range load(time.Duration(number) * time.Millisecond) {
				out.Encode(one)
			}
			fmt.Println("end")
			continue
		}
		answer := stats()
		for _, conn := range taken {
			answer.Taken = append(answer.Taken, inode(conn))
		}
		out.Encode(answer)
	}
}
