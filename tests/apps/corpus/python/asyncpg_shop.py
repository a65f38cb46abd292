"""A shop's back office by asyncpg and its pool."""

import asyncio
import os
import random
import ssl
import sys
import traceback

import asyncpg

from shop import leaked, setting

LOST = []
PORT = "select inet_client_port(), count(*) from orders"


def address(port=None):
    """Where the server is; asyncpg does not verify with `require`, but has to be told so."""
    context = False
    if os.environ["PGSSLMODE"] == "require":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    name = {"application_name": os.environ["PGAPPNAME"]}
    return {
        "host": "127.0.0.1",
        "port": int(port or os.environ["PGPORT"]),
        "ssl": context,
        "server_settings": name,
    }


async def pause(milliseconds):
    """Varied by a third to either side."""
    await asyncio.sleep(milliseconds / 1000 * random.uniform(0.67, 1.33))


async def every(milliseconds, do):
    """Does something for ever, with pauses."""
    while True:
        try:
            await do()
        except Exception:  # a shop goes on
            traceback.print_exc()
        await pause(milliseconds)


def in_background(work):
    """Starts a task and keeps it from being collected."""
    LOST.append(asyncio.ensure_future(work))


class Shop:
    """The handlers."""

    def __init__(self, pool):
        self.pool = pool
        self.calls = 0
        self.enough = False

    async def serve(self):
        """One ordinary request or the other."""
        await random.choice((self.list_orders, self.list_orders, self.place_order))()

    async def list_orders(self):
        """An ordinary request."""
        await self.pool.fetch("select id, customer from orders order by id desc limit 20", timeout=5)

    async def place_order(self):
        """Another one, of several statements."""
        async with self.pool.acquire(timeout=5) as connection, connection.transaction():
            await connection.fetchval("select count(*) from orders where cents > $1", 700)
            await connection.execute("insert into orders (customer, cents) values ('customer-7', 1)")

    async def reserve_stock(self):
        """Returns early where there is nothing to reserve, without an end to its transaction."""
        connection = await self.pool.acquire()
        LOST.append(connection)
        transaction = connection.transaction()
        await transaction.start()
        port = await connection.fetchval(PORT)
        available = await connection.fetchval("select 0")
        if available == 0:
            leaked(port)
            return
        await transaction.commit()

    async def apply_coupon(self):
        """Does not roll back after its statement has failed."""
        connection = await self.pool.acquire()
        LOST.append(connection)
        transaction = connection.transaction()
        await transaction.start()
        port = await connection.fetchval(PORT)
        try:
            await connection.execute("update orders set cents = cents / 0 where id = 1")
        except asyncpg.PostgresError:
            leaked(port)
            return
        await transaction.commit()

    async def customer_report(self):
        """Does not give its connection back."""
        connection = await self.pool.acquire(timeout=5)
        LOST.append(connection)
        port = await connection.fetchval(PORT)
        leaked(port)

    async def import_order(self):
        """Gives its connection back, unless the order is bad."""
        self.calls += 1
        connection = await self.pool.acquire(timeout=5)
        port = await connection.fetchval(PORT)
        if self.calls % 3 == 0:
            LOST.append(connection)
            leaked(port)
            raise ValueError("order without a customer")
        await self.pool.release(connection)

    async def monthly_statement(self):
        """Opens a pool of its own each time."""
        pool = await asyncpg.create_pool(min_size=1, max_size=2, **address())
        LOST.append(pool)
        leaked(await pool.fetchval(PORT))

    async def sync_inventory(self):
        """Opens a connection each time and never closes it."""
        connection = await asyncpg.connect(**address())
        LOST.append(connection)
        leaked(await connection.fetchval(PORT))

    async def browse_catalogue(self):
        """Reads a cursor's first page and forgets the rest."""
        connection = await self.pool.acquire()
        LOST.append(connection)
        await connection.transaction().start()
        port = await connection.fetchval(PORT)
        cursor = await connection.cursor("select id from orders")
        await cursor.fetch(10)
        LOST.append(cursor)
        leaked(port)

    async def send_receipts(self):
        """Leaves a task behind that waits for ever, holding its connection."""

        async def work():
            async with self.pool.acquire() as connection:
                leaked(await connection.fetchval(PORT))
                await asyncio.get_running_loop().create_future()

        in_background(work())

    async def charge_card(self):
        """Holds its connection while it waits for somebody who never answers."""

        async def work():
            async with self.pool.acquire() as connection:
                port = await connection.fetchval(PORT)
                reader, _ = await asyncio.open_connection("127.0.0.1", setting("CORPUS_HOLE"))
                leaked(port)
                await reader.read()

        in_background(work())

    async def query_warehouse(self):
        """Asks a server that accepts and says nothing."""

        async def work():
            leaked(0)
            await asyncpg.connect(timeout=3600, **address(os.environ["CORPUS_HOLE"]))

        in_background(work())

    def until_enough(self, leak):
        """What leaks until the program is told that it has lost enough."""

        async def once():
            if not self.enough:
                await leak()

        return once

    async def burst(self, size):
        """Uses connections at the same time and gives them all back."""
        held = []
        try:
            for _ in range(size):
                held.append(await self.pool.acquire(timeout=5))
                await held[-1].fetchval(PORT)
        finally:
            for connection in held:
                await self.pool.release(connection)

    async def bursts(self):
        """Peaks of different heights."""
        await self.burst(random.randrange(1, 25))

    async def per_request(self):
        """Connects, asks and closes."""
        connection = await asyncpg.connect(**address())
        await connection.fetchval(PORT)
        await connection.close()

    async def listen(self):
        """Waits for notifications that hardly ever come."""
        connection = await asyncpg.connect(**address())
        LOST.append(connection)
        await connection.add_listener("orders", lambda *_: None)

    async def slow_cursor(self):
        """Reads a page every now and then, in one long transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            cursor = await connection.cursor("select id from orders")
            for _ in range(10):
                await cursor.fetch(20)
                await pause(1500)

    async def cancelled(self):
        """Gives up on a request that takes too long."""
        try:
            await self.pool.execute("select pg_sleep(30)", timeout=0.1)
        except asyncio.TimeoutError:
            pass

    async def two_pools(self):
        """A second pool rests while the first grows and shrinks."""
        other = await asyncpg.create_pool(min_size=8, max_size=8, **address())
        LOST.append(other)
        size = 0
        while True:
            size += 1
            await self.burst(2 + size % 15)
            await pause(setting("CORPUS_EVERY"))


async def main():
    """Serves; at a line on stdin begins with the pattern that the command line names, at another ends a leak."""
    pattern, pace = sys.argv[1], setting("CORPUS_EVERY")
    life = 4 if pattern == "rotation" else 300
    pool = await asyncpg.create_pool(
        min_size=6 if pattern == "rotation" else 2,
        max_size=setting("CORPUS_POOL"),
        max_inactive_connection_lifetime=life,
        **address(),
    )
    shop = Shop(pool)
    leaks = {
        "transaction": shop.reserve_stock,
        "failed_transaction": shop.apply_coupon,
        "not_returned": shop.customer_report,
        "error_path": shop.import_order,
        "pool_per_request": shop.monthly_statement,
        "connection_per_request": shop.sync_inventory,
        "cursor": shop.browse_catalogue,
        "lost_task": shop.send_receipts,
        "stuck": shop.charge_card,
        "connect_hang": shop.query_warehouse,
    }
    behaviours = {
        "steady": asyncio.sleep(0),
        "rotation": every(2 * pace, shop.bursts),
        "idle": shop.burst(9),
        "bursty": every(2 * pace, shop.bursts),
        "per_request": every(pace / 3, shop.per_request),
        "listen": shop.listen(),
        "slow_cursor": every(pace, shop.slow_cursor),
        "cancelled": every(pace / 2, shop.cancelled),
        "two_pools": shop.two_pools(),
    }
    if pattern != "idle":
        for _ in range(2):
            in_background(every(setting("CORPUS_LOAD"), shop.serve))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    in_background(every(pace, shop.until_enough(leaks[pattern])) if pattern in leaks else behaviours[pattern])
    while await loop.run_in_executor(None, sys.stdin.readline):
        shop.enough = True
    os._exit(0)


asyncio.run(main())
