// A program that says of its own calls of connect and of its requests how the runtime saw them.
//
// It speaks just enough of PostgreSQL's protocol to log in without a password and to send a query, so that
// it needs nothing but Go's standard library. Commands on stdin, one answer a line:
//
//	open SHAPE          connects by way of the shape
//	use COOKIE SHAPE    sends a request on that connection by way of the shape
//	send COOKIE SHAPE   the same by a system call of its own, without net.Conn.Write
//	rounds COOKIE N     sends N requests, one after the answer to the other
//
// "ok cookie=N stack=HEX": the connection's socket cookie, and what runtime.Stack said within the very
// expression that makes the system call, or calls net.Conn.Write.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// connectFunc is what package net connects by.
//
//go:linkname connectFunc net.connectFunc
var connectFunc func(int, syscall.Sockaddr) error

var (
	server      = os.Getenv("SERVER")
	connections = map[uint64]net.Conn{}
	guard       sync.Mutex
	connects    = map[int]string{}
)

// stack is what the runtime says of the caller's stack.
//
//go:noinline
func stack() string {
	text := make([]byte, 1<<20)
	return string(text[:runtime.Stack(text, false)])
}

func tracedConnect(fd int, to syscall.Sockaddr) error {
	return noteConnect(fd, stack(), syscall.Connect(fd, to))
}

func noteConnect(fd int, stack string, err error) error {
	guard.Lock()
	defer guard.Unlock()
	connects[fd] = stack
	return err
}

func noting(seen *string, stack string) (nothing struct{}) {
	*seen = stack
	return
}

// cookie is the socket's cookie (SO_COOKIE), and its descriptor.
func cookie(connection net.Conn) (cookie uint64, fd int) {
	raw, err := connection.(syscall.Conn).SyscallConn()
	check(err)
	check(raw.Control(func(descriptor uintptr) {
		const soCookie = 57
		size := unsafe.Sizeof(cookie)
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, descriptor, syscall.SOL_SOCKET, soCookie,
			uintptr(unsafe.Pointer(&cookie)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			panic(errno)
		}
		fd = int(descriptor)
	}))
	return
}

func startup() []byte {
	parameters := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	return append([]byte{0, 0, 0, byte(4 + len(parameters))}, parameters...)
}

// query is a request; it takes what else its caller has to do in the same expression.
func query(_ ...struct{}) []byte {
	return append([]byte{'Q', 0, 0, 0, 4 + 9}, "select 1\x00"...)
}

// awaitReady reads messages until the server is ready for a query.
func awaitReady(connection net.Conn) {
	var kind byte
	for reader := bufio.NewReader(connection); kind != 'Z'; {
		var header [5]byte
		readFull(reader, header[:])
		kind = header[0]
		length := int(header[1])<<24 | int(header[2])<<16 | int(header[3])<<8 | int(header[4])
		body := make([]byte, length-4)
		readFull(reader, body)
		if kind == 'E' {
			panic(string(body))
		}
	}
}

func readFull(reader *bufio.Reader, to []byte) {
	for len(to) > 0 {
		n, err := reader.Read(to)
		check(err)
		to = to[n:]
	}
}

// open connects by way of a shape, and logs in by another: the request that counts comes later.
func open(shape string) string {
	var connection net.Conn
	by(shape, func() {
		var err error
		connection, err = net.Dial("tcp", server)
		check(err)
	})
	id, fd := cookie(connection)
	guard.Lock()
	seen := connects[fd]
	guard.Unlock()
	connections[id] = connection
	_, err := connection.Write(startup())
	check(err)
	awaitReady(connection)
	return answer(id, seen)
}

// use sends a request by way of a shape.
func use(id uint64, shape string) string {
	connection, seen := connections[id], ""
	by(shape, func() {
		_, err := connection.Write(query(noting(&seen, stack())))
		check(err)
	})
	awaitReady(connection)
	return answer(id, seen)
}

// send writes a request by a system call that runs below a function of the program itself, as libraries
// that poll by themselves do.
func send(id uint64, shape string) string {
	connection, seen := connections[id], ""
	raw, err := connection.(syscall.Conn).SyscallConn()
	check(err)
	by(shape, func() {
		check(raw.Write(func(fd uintptr) bool {
			_, err := syscall.Write(int(fd), query(noting(&seen, stack())))
			check(err)
			return true
		}))
	})
	awaitReady(connection)
	return answer(id, seen)
}

func answer(id uint64, stack string) string {
	return fmt.Sprintf("cookie=%d stack=%s", id, hex.EncodeToString([]byte(stack)))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func number(text string) uint64 {
	number, err := strconv.ParseUint(text, 10, 64)
	check(err)
	return number
}

func main() {
	connectFunc = tracedConnect
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		said := ""
		switch words[0] {
		case "open":
			said = open(words[1])
		case "use":
			said = use(number(words[1]), words[2])
		case "send":
			said = send(number(words[1]), words[2])
		case "rounds":
			connection := connections[number(words[1])]
			for left := number(words[2]); left > 0; left-- {
				_, err := connection.Write(query())
				check(err)
				awaitReady(connection)
			}
		default:
			panic(words[0])
		}
		fmt.Println("ok", said)
	}
}
