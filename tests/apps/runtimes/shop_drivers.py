"""An order service like shop.c, by the driver that its first argument names: one command a line on stdin, one
answer a line. The answer to a request names the function and line that make it, as Python itself tells them.

A comment `LEAK name` marks the line that makes a handler's last request; tests look it up.
"""

import sys
import traceback

DRIVER, HOST, PORT, USER = sys.argv[1:]
POOL = []
FORGOTTEN = []
WITNESS = []


def witnessed(sql):
    """Notes the calls that lead here, innermost first."""
    frames = traceback.extract_stack()[:-1]
    WITNESS[:] = [f"{frame.name}:{frame.lineno}" for frame in reversed(frames)]
    return sql


def connect():
    """Opens a connection by the driver."""
    if DRIVER in ("psycopg2", "gevent"):
        import psycopg2

        return psycopg2.connect(
            host=HOST, port=PORT, user=USER, dbname="postgres", sslmode="disable", gssencmode="disable"
        )
    import psycopg

    return psycopg.connect(
        host=HOST, port=PORT, user=USER, dbname="postgres", sslmode="disable", gssencmode="disable"
    )


def list_orders():
    """Healthy: ends its transaction and returns its connection."""
    connection = POOL.pop() if POOL else connect()
    connection.cursor().execute("SELECT generate_series(1, 10)")
    connection.commit()
    POOL.append(connection)


def show_invoice():
    """Forgets to return its connection."""
    connection = POOL.pop() if POOL else connect()
    connection.autocommit = True
    FORGOTTEN.append(connection)
    connection.cursor().execute(witnessed("SELECT 'invoice'"))  # LEAK return


def refund_order():
    """Forgets to end its transaction."""
    connection = POOL.pop() if POOL else connect()
    FORGOTTEN.append(connection)
    connection.cursor().execute(witnessed("SELECT 'refund'"))  # LEAK transaction


async def connect_async():
    """Opens a connection by asyncpg."""
    import asyncpg

    return await asyncpg.connect(host=HOST, port=int(PORT), user=USER, database="postgres", ssl=False)


async def list_orders_async():
    """Healthy, with asyncpg."""
    connection = POOL.pop() if POOL else await connect_async()
    await connection.execute("SELECT generate_series(1, 10)")
    POOL.append(connection)


async def show_invoice_async():
    """Forgets to return its connection, with asyncpg."""
    connection = POOL.pop() if POOL else await connect_async()
    FORGOTTEN.append(connection)
    await connection.execute(witnessed("SELECT 'invoice'"))  # LEAK return with asyncpg


async def refund_order_async():
    """Forgets to end its transaction, with asyncpg."""
    connection = POOL.pop() if POOL else await connect_async()
    FORGOTTEN.append(connection)
    await connection.execute("BEGIN")
    await connection.execute(witnessed("SELECT 'refund'"))  # LEAK transaction with asyncpg


HANDLERS = {"serve": list_orders, "return": show_invoice, "transaction": refund_order}
HANDLERS_ASYNC = {
    "serve": list_orders_async,
    "return": show_invoice_async,
    "transaction": refund_order_async,
}


def answer(error=None):
    """Says how a command went."""
    if error is None:
        print(f"ok python={sys.version_info[0]}.{sys.version_info[1]} stack={'|'.join(WITNESS)}", flush=True)
    else:
        print("failed", " ".join(repr(error).split()), flush=True)


def main():
    """Obeys until stdin ends."""
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        try:
            for _ in range(int(number or 1)):
                HANDLERS[command]()
            answer()
        except Exception as error:  # the test prints it
            answer(error)


async def main_async():
    """The same on an event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, number = line.strip().partition(" ")
        try:
            for _ in range(int(number or 1)):
                await HANDLERS_ASYNC[command]()
            answer()
        except Exception as error:  # the test prints it
            answer(error)


def main_gevent():
    """The same, each command on a greenlet of its own."""
    import gevent
    import psycopg2.extensions
    from gevent.socket import wait_read, wait_write

    def wait(connection):
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            (wait_read if state == psycopg2.extensions.POLL_READ else wait_write)(connection.fileno())

    psycopg2.extensions.set_wait_callback(wait)
    gevent.spawn(main).join()


if DRIVER == "gevent":
    main_gevent()
elif DRIVER in ("asyncpg", "uvloop"):
    import asyncio

    if DRIVER == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(main_async())
else:
    main()
