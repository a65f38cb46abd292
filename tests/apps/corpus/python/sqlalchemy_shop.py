"""A shop's back office by SQLAlchemy on psycopg2, with its QueuePool."""

import itertools
import random
import threading

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from shop import every, in_background, jitter, leaked, run, setting, wait_for_ever

CAP = setting("CORPUS_POOL")


def engine(**more):
    """An engine; where its server is comes from libpq's own variables."""
    return create_engine("postgresql+psycopg2://", **more)


ENGINE = engine(pool_size=5, max_overflow=CAP - 5, pool_timeout=5)
CALLS = itertools.count(1)
LOST = []
PORT = text("select inet_client_port(), count(*) from orders")


def list_orders():
    """An ordinary request."""
    with ENGINE.connect() as connection:
        connection.execute(text("select id, customer from orders order by id desc limit 20")).fetchall()


def place_order():
    """Another one, of several statements."""
    with Session(ENGINE) as session, session.begin():
        session.execute(text("select count(*) from orders where cents > 700"))
        session.execute(text("insert into orders (customer, cents) values ('customer-7', 100)"))


def serve():
    """One ordinary request or the other."""
    random.choice((list_orders, list_orders, place_order))()


def export_invoices():
    """Stops at the first row of a streamed result, and leaves the rest unread."""
    connection = ENGINE.connect().execution_options(stream_results=True, max_row_buffer=10)
    result = connection.execute(
        text("select inet_client_port(), repeat('x', 500) from orders, generate_series(1, 40)")
    )
    LOST.append((connection, result))
    leaked(result.fetchone()[0])


def reserve_stock():
    """A session that nobody closes where there is nothing to reserve."""
    session = Session(ENGINE)
    LOST.append(session)
    port, available = session.execute(text("select inet_client_port(), 0")).one()
    if available == 0:
        leaked(port)
        return
    session.commit()
    session.close()


def apply_coupon():
    """Does not roll back after its statement has failed."""
    connection = ENGINE.connect()
    LOST.append(connection)
    connection.begin()
    port = connection.execute(PORT).fetchone()[0]
    try:
        connection.execute(text("update orders set cents = cents / 0 where id = 1"))
    except Exception:
        leaked(port)
        return
    connection.close()


def customer_report():
    """Does not close its connection."""
    connection = ENGINE.connect().execution_options(isolation_level="AUTOCOMMIT")
    LOST.append(connection)
    leaked(connection.execute(PORT).fetchone()[0])


def import_order():
    """Closes its connection, unless the order is bad."""
    connection = ENGINE.connect().execution_options(isolation_level="AUTOCOMMIT")
    port = connection.execute(PORT).fetchone()[0]
    if next(CALLS) % 3 == 0:
        LOST.append(connection)
        leaked(port)
        raise ValueError("order without a customer")
    connection.close()


def monthly_statement():
    """Makes an engine of its own each time."""
    own = engine()
    LOST.append(own)
    with own.connect() as connection:
        port = connection.execute(PORT).fetchone()[0]
    leaked(port)


def send_receipts():
    """Holds its connection while it waits for a printer's event that is never set."""

    def work():
        with ENGINE.connect() as connection:
            leaked(connection.execute(PORT).fetchone()[0])
            threading.Event().wait()

    in_background(work)


def charge_card():
    """Holds its connection while it waits for somebody who never answers."""

    def work():
        with ENGINE.begin() as connection:
            leaked(connection.execute(PORT).fetchone()[0])
            wait_for_ever()

    in_background(work)


def burst(size):
    """Uses connections at the same time and closes them all."""
    held = []
    try:
        for _ in range(size):
            held.append(ENGINE.connect())
            held[-1].execute(PORT).fetchone()
    finally:
        for connection in held:
            connection.close()


def rotate():
    """A pool whose connections live some seconds only."""
    own = engine(pool_size=8, pool_recycle=3)
    LOST.append(own)

    def use():
        held = [own.connect() for _ in range(random.randrange(1, 8))]
        for connection in held:
            connection.execute(PORT).fetchone()
            connection.close()

    every(setting("CORPUS_LOAD"), use)


def per_request():
    """Connects, asks and closes."""
    with engine(poolclass=NullPool).connect() as connection:
        connection.execute(PORT).fetchone()


def long_report():
    """Keeps the server busy for longer than counts as silent."""
    with ENGINE.connect() as connection:
        connection.execute(text("select pg_sleep(9 + 5 * random())"))


def slow_cursor():
    """Reads a page every now and then, in one long transaction."""
    with ENGINE.connect().execution_options(stream_results=True, max_row_buffer=20) as connection:
        result = connection.execute(text("select id from orders"))
        for _ in range(10):
            result.fetchmany(20)
            jitter(1500)


def two_pools():
    """A second pool rests while the first grows and shrinks."""
    other = engine(pool_size=10)
    LOST.append(other)
    held = [other.connect() for _ in range(8)]
    for connection in held:
        connection.execute(PORT).fetchone()
        connection.close()
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
        "lost_task": send_receipts,
        "stuck": charge_card,
    },
    {
        "steady": lambda: None,
        "idle": lambda: burst(9),
        "bursty": lambda: every(2 * EVERY, lambda: burst(random.randrange(1, 25))),
        "rotation": rotate,
        "per_request": lambda: every(EVERY / 3, per_request),
        "long_report": lambda: every(EVERY, long_report),
        "slow_cursor": lambda: every(EVERY, slow_cursor),
        "two_pools": two_pools,
    },
    serve,
)
