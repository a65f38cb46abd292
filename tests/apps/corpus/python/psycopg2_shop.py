"""A shop's back office by psycopg2 and its ThreadedConnectionPool."""

import itertools
import os
import random
import select
import threading

import psycopg2
import psycopg2.extensions
from psycopg2.pool import ThreadedConnectionPool

from shop import dsn, every, in_background, jitter, leaked, run, setting, wait_for_ever

POOL = ThreadedConnectionPool(2, setting("CORPUS_POOL"), dsn())
CALLS = itertools.count(1)
LOST = []


def port_of(connection):
    """The port of a connection; asks the server, and ends the transaction that this begins."""
    with connection.cursor() as cursor:
        cursor.execute("select inet_client_port()")
        (port,) = cursor.fetchone()
    connection.rollback()
    return port


def list_orders():
    """An ordinary request."""
    connection = POOL.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select id, customer from orders order by id desc limit 20")
            cursor.fetchall()
    finally:
        POOL.putconn(connection)


def place_order():
    """Another one, of several statements."""
    connection = POOL.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select count(*) from orders where cents > %s", (random.randrange(5000),))
            cursor.execute("insert into orders (customer, cents) values ('customer-7', 100)")
    finally:
        POOL.putconn(connection)


def serve():
    """One ordinary request or the other."""
    random.choice((list_orders, list_orders, place_order))()


def export_invoices():
    """Reads the first rows of a server-side cursor and forgets it, and its transaction."""
    connection = POOL.getconn()
    port = port_of(connection)
    cursor = connection.cursor("invoices")
    cursor.itersize = 10
    cursor.execute("select id, note from orders")
    next(cursor)
    LOST.append(cursor)
    leaked(port)


def reserve_stock():
    """Returns early where there is nothing to reserve, without an end to its transaction."""
    connection = POOL.getconn()
    port = port_of(connection)
    cursor = connection.cursor()
    cursor.execute("select 0 from orders limit 1")
    (available,) = cursor.fetchone()
    if available == 0:
        leaked(port)
        return
    connection.commit()
    POOL.putconn(connection)


def apply_coupon():
    """Does not roll back after its statement has failed."""
    connection = POOL.getconn()
    port = port_of(connection)
    cursor = connection.cursor()
    try:
        cursor.execute("update orders set cents = cents / 0 where id = 1")
    except psycopg2.Error:
        leaked(port)
        return
    connection.commit()
    POOL.putconn(connection)


def customer_report():
    """Does not give its connection back."""
    connection = POOL.getconn()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select inet_client_port(), count(*) from orders")
        leaked(cursor.fetchone()[0])


def import_order():
    """Gives its connection back, unless the order is bad."""
    connection = POOL.getconn()
    with connection.cursor() as cursor:
        cursor.execute("select inet_client_port() from orders limit 1")
        port = cursor.fetchone()[0]
    connection.commit()
    if next(CALLS) % 3 == 0:
        leaked(port)
        raise ValueError("order without a customer")
    POOL.putconn(connection)


def sync_prices():
    """Loses one connection in a thousand."""
    for number in range(1000):
        connection = POOL.getconn()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select inet_client_port()")
            port = cursor.fetchone()[0]
        if number == 999:
            leaked(port)
            return
        connection.autocommit = False
        POOL.putconn(connection)


def monthly_statement():
    """Opens a pool of its own each time."""
    pool = ThreadedConnectionPool(1, 4, dsn())
    LOST.append(pool)
    connection = pool.getconn()
    with connection, connection.cursor() as cursor:
        cursor.execute("select inet_client_port(), count(*) from orders")
        port = cursor.fetchone()[0]
    pool.putconn(connection)
    leaked(port)


def sync_inventory():
    """Opens a connection each time and keeps a reference to it."""
    connection = psycopg2.connect(dsn())
    LOST.append(connection)
    with connection, connection.cursor() as cursor:
        cursor.execute("select inet_client_port(), count(*) from orders")
        port = cursor.fetchone()[0]
    leaked(port)


def browse_catalogue():
    """Reads a cursor's first page and forgets the rest."""
    connection = POOL.getconn()
    port = port_of(connection)
    cursor = connection.cursor()
    cursor.execute("declare page cursor for select id from orders")
    cursor.execute("fetch 10 from page")
    cursor.fetchall()
    leaked(port)


class Feed:
    """Rows that stop coming."""

    def __init__(self, port):
        self.port = port
        self.rows = 0

    def read(self, size=-1):
        """Some rows at first; then nothing, for ever."""
        self.rows += 1
        if self.rows > 3:
            leaked(self.port)
            threading.Event().wait()
        return "customer-1\t100\n" * 50


def bulk_import():
    """Begins a COPY, and waits for rows that never come."""

    def work():
        connection = POOL.getconn()
        port = port_of(connection)
        with connection.cursor() as cursor:
            cursor.copy_expert("copy imported from stdin", Feed(port), size=64)

    in_background(work)


def send_receipts():
    """Holds its connection while it waits for a printer's event that is never set."""

    def work():
        connection = POOL.getconn()
        with connection, connection.cursor() as cursor:
            cursor.execute("select inet_client_port() from orders limit 1")
            port = cursor.fetchone()[0]
        leaked(port)
        threading.Event().wait()
        POOL.putconn(connection)

    in_background(work)


def charge_card():
    """Holds its connection, in a transaction, while it waits for somebody who never answers."""

    def work():
        connection = POOL.getconn()
        with connection, connection.cursor() as cursor:
            cursor.execute("select inet_client_port() from orders limit 1")
            leaked(cursor.fetchone()[0])
            wait_for_ever()
        POOL.putconn(connection)

    in_background(work)


def query_warehouse():
    """Asks a server that accepts and says nothing."""

    def work():
        leaked(0)
        psycopg2.connect(dsn(setting("CORPUS_HOLE")))

    in_background(work)


def burst(size):
    """Uses connections at the same time and gives them all back."""
    held = []
    try:
        for _ in range(size):
            held.append(POOL.getconn())
            with held[-1], held[-1].cursor() as cursor:
                cursor.execute("select count(*) from orders where cents < 100")
    finally:
        for connection in held:
            POOL.putconn(connection)


def per_request():
    """Connects, asks and closes."""
    connection = psycopg2.connect(dsn())
    try:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from orders")
    finally:
        connection.close()


def listen():
    """Waits for notifications that hardly ever come."""
    connection = psycopg2.connect(dsn())
    connection.autocommit = True
    connection.cursor().execute("listen orders")
    while True:
        select.select([connection], [], [], 60)
        connection.poll()


def long_report():
    """Keeps the server busy for longer than counts as silent."""
    connection = POOL.getconn()
    with connection, connection.cursor() as cursor:
        cursor.execute("select pg_sleep(9 + 5 * random())")
    POOL.putconn(connection)


def slow_cursor():
    """Reads a page every now and then, in one long transaction."""
    connection = POOL.getconn()
    with connection, connection.cursor("slow") as cursor:
        cursor.execute("select id from orders")
        for _ in range(10):
            cursor.fetchmany(20)
            jitter(1500)
    POOL.putconn(connection)


class SlowFeed:
    """Rows that come slowly, and end."""

    def __init__(self):
        self.left = 40

    def read(self, size=-1):
        """Some rows, after a pause."""
        if self.left == 0:
            return ""
        self.left -= 1
        jitter(250)
        return "customer-1\t100\n" * 500


def copy():
    """Streams rows in as they come."""
    connection = POOL.getconn()
    with connection, connection.cursor() as cursor:
        cursor.copy_expert("copy imported from stdin", SlowFeed(), size=8192)
    POOL.putconn(connection)


def two_pools():
    """A second pool rests while the first grows and shrinks."""
    other = ThreadedConnectionPool(8, 10, dsn())
    LOST.append(other)
    for size in itertools.count():
        burst(2 + size % 15)
        jitter(setting("CORPUS_EVERY"))


def cancelled():
    """Gives up on a request that takes too long."""
    connection = POOL.getconn()
    timer = threading.Timer(0.1, connection.cancel)
    timer.start()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select pg_sleep(30)")
    except psycopg2.extensions.QueryCanceledError:
        pass
    finally:
        POOL.putconn(connection)


def own_connections():
    """Threads with a connection of their own and little to do."""

    def work():
        connection = psycopg2.connect(dsn())
        while True:
            with connection, connection.cursor() as cursor:
                cursor.execute("select count(*) from orders where cents < 100")
            jitter(random.uniform(2000, 9000))

    for _ in range(8):
        in_background(work)
        jitter(setting("CORPUS_EVERY"))


def prefork():
    """Workers inherit their parent's connection, leave it alone, and are replaced after a while."""
    inherited = psycopg2.connect(dsn())
    LOST.append(inherited)

    def worker():
        connection = psycopg2.connect(dsn())
        for _ in range(random.randrange(30, 80)):
            with connection, connection.cursor() as cursor:
                cursor.execute("select count(*) from orders")
            jitter(setting("CORPUS_LOAD"))
        os._exit(0)

    running = 0
    while True:
        while running < 4:
            if os.fork() == 0:
                worker()
            running += 1
        os.wait()
        running -= 1


EVERY = setting("CORPUS_EVERY")
run(
    {
        "rows": export_invoices,
        "transaction": reserve_stock,
        "failed_transaction": apply_coupon,
        "not_returned": customer_report,
        "error_path": import_order,
        "rare": sync_prices,
        "pool_per_request": monthly_statement,
        "connection_per_request": sync_inventory,
        "cursor": browse_catalogue,
        "copy_open": bulk_import,
        "lost_task": send_receipts,
        "stuck": charge_card,
        "connect_hang": query_warehouse,
    },
    {
        "steady": lambda: None,
        "idle": lambda: burst(9),
        "warm_up": lambda: LOST.append(ThreadedConnectionPool(50, 50, dsn())),
        "bursty": lambda: every(2 * EVERY, lambda: burst(random.randrange(1, 25))),
        "per_request": lambda: every(EVERY / 3, per_request),
        "listen": listen,
        "long_report": lambda: every(EVERY, long_report),
        "slow_cursor": lambda: every(EVERY, slow_cursor),
        "copy": lambda: every(EVERY, copy),
        "two_pools": two_pools,
        "cancelled": lambda: every(EVERY / 2, cancelled),
        "worker_owned": own_connections,
        "prefork": prefork,
    },
    serve,
)
