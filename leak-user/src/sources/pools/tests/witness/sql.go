package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"net"
	"time"
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

type databaseSQL struct {
	db    *sql.DB
	taken []*sql.Conn
}

func open(address string) pool {
	db := sql.OpenDB(connector{address})
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(8)
	return &databaseSQL{db: db}
}

func serve(conn net.Conn) { io.Copy(conn, conn) }

func (p *databaseSQL) stats() state {
	s := p.db.Stats()
	return state{
		Open: int64(s.OpenConnections), InUse: int64(s.InUse), Idle: int64(s.Idle),
		Max: int64(s.MaxOpenConnections), WaitCount: s.WaitCount, WaitNanos: int64(s.WaitDuration),
	}
}

func (p *databaseSQL) take() {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		panic(err)
	}
	p.taken = append(p.taken, conn)
}

func (p *databaseSQL) give() {
	last := len(p.taken) - 1
	p.taken[last].Close()
	p.taken = p.taken[:last]
}

func (p *databaseSQL) limit(number int) { p.db.SetMaxOpenConns(number) }

func (p *databaseSQL) wait(number int) {
	before := p.db.Stats().WaitCount
	for i := 0; i < number; i++ {
		go func() {
			if conn, err := p.db.Conn(ctx); err == nil {
				time.Sleep(time.Hour)
				conn.Close()
			}
		}()
	}
	for p.db.Stats().WaitCount < before+int64(number) {
		time.Sleep(time.Millisecond)
	}
}

func (p *databaseSQL) cancel(number int) {
	for i := 0; i < number; i++ {
		soon, done := context.WithTimeout(ctx, time.Millisecond)
		p.db.Conn(soon)
		done()
	}
}

func (p *databaseSQL) prepare() { p.db.Prepare("") }

func (p *databaseSQL) inodes() (inodes []uint64) {
	for _, conn := range p.taken {
		conn.Raw(func(raw interface{}) error {
			inodes = append(inodes, inode(raw.(*connection).net))
			return nil
		})
	}
	return
}
