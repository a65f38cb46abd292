package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v4/pgxpool"
)

type pgxPool struct {
	pool  *pgxpool.Pool
	taken []*pgxpool.Conn
}

func open(address string) pool {
	config, err := pgxpool.ParseConfig("postgres://shop@" + address + "/shop?sslmode=disable")
	if err != nil {
		panic(err)
	}
	config.MaxConns = 20
	pool, err := pgxpool.ConnectConfig(ctx, config)
	if err != nil {
		panic(err)
	}
	return &pgxPool{pool: pool}
}

// A server that lets everybody in, and then only waits.
func serve(conn net.Conn) {
	var length uint32
	if binary.Read(conn, binary.BigEndian, &length) == nil {
		io.CopyN(io.Discard, conn, int64(length)-4)
		conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
		io.Copy(io.Discard, conn)
	}
	conn.Close()
}

func (p *pgxPool) stats() state {
	s := p.pool.Stat()
	return state{
		Open: int64(s.TotalConns()), InUse: int64(s.AcquiredConns() + s.ConstructingConns()),
		Idle: int64(s.IdleConns()), Max: int64(s.MaxConns()),
	}
}

func (p *pgxPool) take() {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	p.taken = append(p.taken, conn)
}

func (p *pgxPool) give() {
	last := len(p.taken) - 1
	p.taken[last].Release()
	p.taken = p.taken[:last]
}

func (p *pgxPool) limit(int) { panic("it stays") }

// Goroutines that wait for a condition; nothing else of this program does.
func waiting() int {
	dump := make([]byte, 16<<20)
	return strings.Count(string(dump[:runtime.Stack(dump, true)]), "[sync.Cond.Wait")
}

func (p *pgxPool) wait(number int) {
	for i := 0; i < number; i++ {
		// Some can be cancelled, and wait in another way.
		ctx := ctx
		if i%2 == 0 {
			ctx, _ = context.WithCancel(ctx)
		}
		go func() {
			if conn, err := p.pool.Acquire(ctx); err == nil {
				time.Sleep(time.Hour)
				conn.Release()
			}
		}()
	}
	for waiting() < number {
		time.Sleep(time.Millisecond)
	}
}

func (p *pgxPool) cancel(number int) {
	for i := 0; i < number; i++ {
		soon, done := context.WithTimeout(ctx, time.Millisecond)
		p.pool.Acquire(soon)
		done()
	}
}

func (p *pgxPool) prepare() { panic("it has no statements") }

func (p *pgxPool) inodes() (inodes []uint64) {
	for _, conn := range p.taken {
		inodes = append(inodes, inode(conn.Conn().PgConn().Conn()))
	}
	return
}
