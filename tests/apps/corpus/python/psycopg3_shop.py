"""A shop's back office by psycopg 3 and its psycopg_pool."""

import itertools
import random
import threading

import psycopg
from psycopg_pool import ConnectionPool

from shop import dsn, every, in_background, jitter, leaked, run, setting, wait_for_ever

CAP = setting("CORPUS_POOL")
POOL = ConnectionPool(dsn(), min_size=2, max_size=CAP, timeout=5)
PORT = "select inet_client_port(), count(*) from orders"
CALLS = itertools.count(1)
LOST = []


def list_orders():
    """An ordinary request."""
    with POOL.connection() as connection:
        connection.execute("select id, customer from orders order by id desc limit 20").fetchall()


def place_order():
    """Another one, of several statements."""
    with POOL.connection() as connection:
        connection.execute("select count(*) from orders where cents > %s", (random.randrange(5000),))
        connection.execute("insert into orders (customer, cents) values ('customer-7', 100)")


def serve():
    """One ordinary request or the other."""
    random.choice((list_orders, list_orders, place_order))()


def export_invoices():
    """Stops at the first row of a stream, and leaves the rest unread."""
    connection = POOL.getconn()
    LOST.append(connection)
    rows = connection.cursor().stream(
        "select inet_client_port(), repeat('x', 500) from orders, generate_series(1, 40)"
    )
    LOST.append(rows)
    leaked(next(rows)[0])


def reserve_stock():
    """Returns early where there is nothing to reserve, without an end to its transaction."""
    connection = POOL.getconn()
    LOST.append(connection)
    port, available = connection.execute("select inet_client_port(), 0").fetchone()
    if available == 0:
        leaked(port)
        return
    connection.commit()
    POOL.putconn(connection)


def apply_coupon():
    """Does not roll back after its statement has failed."""
    connection = POOL.getconn()
    LOST.append(connection)
    port = connection.execute(PORT).fetchone()[0]
    try:
        connection.execute("update orders set cents = cents / 0 where id = 1")
    except psycopg.Error:
        leaked(port)
        return
    connection.commit()
    POOL.putconn(connection)


def customer_report():
    """Does not give its connection back."""
    connection = POOL.getconn()
    LOST.append(connection)
    connection.autocommit = True
    leaked(connection.execute(PORT).fetchone()[0])


def import_order():
    """Gives its connection back, unless the order is bad."""
    connection = POOL.getconn()
    LOST.append(connection)
    port = connection.execute(PORT).fetchone()[0]
    connection.commit()
    if next(CALLS) % 3 == 0:
        leaked(port)
        raise ValueError("order without a customer")
    POOL.putconn(connection)


def monthly_statement():
    """Opens a pool of its own each time."""
    pool = ConnectionPool(dsn(), min_size=1, max_size=1)
    LOST.append(pool)
    with pool.connection() as connection:
        port = connection.execute(PORT).fetchone()[0]
    leaked(port)


def sync_inventory():
    """Opens a connection each time and keeps a reference to it."""
    connection = psycopg.connect(dsn(), autocommit=True)
    LOST.append(connection)
    leaked(connection.execute(PORT).fetchone()[0])


def send_receipts():
    """Holds its connection while it waits for a printer's event that is never set."""

    def work():
        with POOL.connection() as connection:
            leaked(connection.execute(PORT).fetchone()[0])
            threading.Event().wait()

    in_background(work)


def charge_card():
    """Holds its connection, in a transaction, while it waits for somebody who never answers."""

    def work():
        with POOL.connection() as connection:
            leaked(connection.execute(PORT).fetchone()[0])
            wait_for_ever()

    in_background(work)


def query_warehouse():
    """Asks a server that accepts and says nothing."""

    def work():
        leaked(0)
        psycopg.connect(dsn(setting("CORPUS_HOLE")))

    in_background(work)


def bulk_import():
    """Begins a COPY, and waits for rows that never come."""

    def work():
        with POOL.connection() as connection:
            port = connection.execute(PORT).fetchone()[0]
            with connection.cursor().copy("copy imported from stdin") as copy:
                for _ in range(2000):
                    copy.write_row(("a customer with a long name, so that buffers fill", 100))
                leaked(port)
                threading.Event().wait()

    in_background(work)


def burst(size):
    """Uses connections at the same time and gives them all back."""
    held = []
    try:
        for _ in range(size):
            held.append(POOL.getconn())
            held[-1].execute(PORT).fetchone()
    finally:
        for connection in held:
            connection.commit()
            POOL.putconn(connection)


def rotate():
    """A pool whose connections live some seconds only."""
    pool = ConnectionPool(dsn(), min_size=6, max_size=10, max_lifetime=4)
    LOST.append(pool)

    def use():
        with pool.connection() as connection:
            connection.execute(PORT).fetchone()

    for _ in range(3):
        in_background(lambda: every(setting("CORPUS_LOAD"), use))


def min_idle():
    """A pool that shrinks when it rests and is filled up again."""
    pool = ConnectionPool(dsn(), min_size=4, max_size=20, max_idle=6)
    LOST.append(pool)

    def use():
        held = [pool.getconn() for _ in range(random.randrange(5, 18))]
        for connection in held:
            connection.execute(PORT).fetchone()
            connection.commit()
            pool.putconn(connection)

    every(6000, use)


def slow_cursor():
    """Reads a page every now and then, in one long transaction."""
    with POOL.connection() as connection, connection.cursor("slow") as cursor:
        cursor.execute("select id from orders")
        for _ in range(10):
            cursor.fetchmany(20)
            jitter(1500)


def cancelled():
    """Gives up on a request that takes too long."""
    with POOL.connection() as connection:
        timer = threading.Timer(0.1, connection.cancel)
        timer.start()
        try:
            connection.execute("select pg_sleep(30)")
        except psycopg.errors.QueryCanceled:
            pass


def copy_out():
    """Reads a big COPY slowly."""
    with POOL.connection() as connection, connection.cursor() as cursor:
        with cursor.copy("copy (select repeat('x', 900) from generate_series(1, 5000)) to stdout") as rows:
            for number, _ in enumerate(rows):
                if number % 400 == 0:
                    jitter(1000)


def two_pools():
    """A second pool rests while the first grows and shrinks."""
    other = ConnectionPool(dsn(), min_size=8, max_size=8)
    LOST.append(other)
    for size in itertools.count():
        burst(2 + size % 15)
        jitter(setting("CORPUS_EVERY"))


EVERY = setting("CORPUS_EVERY")
run(
    {
        "rows": export_invoices,
        "transaction": reserve_stock,
        "failed_transaction": apply_coupon,
        "not_returned": customer_report,
        "error_path": import_order,
        "pool_per_request": monthly_statement,
        "connection_per_request": sync_inventory,
        "lost_task": send_receipts,
        "stuck": charge_card,
        "connect_hang": query_warehouse,
        "copy_open": bulk_import,
    },
    {
        "steady": lambda: None,
        "idle": lambda: burst(9),
        "warm_up": lambda: LOST.append(ConnectionPool(dsn(), min_size=50, max_size=50)),
        "bursty": lambda: every(2 * EVERY, lambda: burst(random.randrange(1, 25))),
        "rotation": rotate,
        "min_idle": min_idle,
        "slow_cursor": lambda: every(EVERY, slow_cursor),
        "cancelled": lambda: every(EVERY / 2, cancelled),
        "copy": lambda: every(EVERY, copy_out),
        "two_pools": two_pools,
    },
    serve,
)
