// A PostgreSQL client that does what it is told, one command a line on stdin, and answers each with one
// line on stdout.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

var sessions []net.Conn

//go:noinline
func openSession(port string) error {
	session, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	sessions = append(sessions, session)
	return ask(session, message("", "\x00\x03\x00\x00user\x00postgres\x00\x00"))
}

// A message of this kind; the first of a session has none.
func message(kind string, body string) string {
	length := len(body) + 4
	return kind + string([]byte{0, 0, byte(length >> 8), byte(length)}) + body
}

// Sends a message and reads what has come of the answer.
//
//go:noinline
func ask(session net.Conn, question string) error {
	if _, err := session.Write([]byte(question)); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	_, err := session.Read(answer)
	return err
}

//go:noinline
func queryAtDepth(depth int) error {
	if depth > 0 {
		var frame [8]int
		frame[depth%8] = depth
		err := queryAtDepth(depth - 1)
		if frame[(depth+1)%8] != 0 {
			return fmt.Errorf("impossible")
		}
		return err
	}
	return ask(sessions[len(sessions)-1], message("Q", "SELECT 1\x00"))
}

func obey(command string, argument string) error {
	switch command {
	case "connect":
		return openSession(argument)
	case "deep":
		depth, err := strconv.Atoi(argument)
		if err != nil {
			return err
		}
		return queryAtDepth(depth)
	}
	return fmt.Errorf("unknown command %s", command)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		if err := obey(command, argument); err != nil {
			fmt.Println("failed", err)
		} else {
			fmt.Println("ok")
		}
	}
}
