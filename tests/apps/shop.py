"""An order service like shop.c, by psycopg2: one command a line on stdin, one answer a line.

A comment `LEAK name` marks the line that makes a handler's last request; tests look it up.
"""

import sys

import psycopg2

POOL = []
FORGOTTEN = []
OPENED = 0


def pool_take():
    """Takes a connection from the pool, opening one when none is idle."""
    global OPENED
    if POOL:
        return POOL.pop()
    OPENED += 1
    return psycopg2.connect(sys.argv[1])


def list_orders():
    """Healthy: ends its transaction and returns its connection."""
    connection = pool_take()
    with connection.cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 10)")
        cursor.fetchall()
    connection.commit()
    POOL.append(connection)


def show_invoice():
    """Forgets to return its connection."""
    connection = pool_take()
    connection.rollback()
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT 'invoice'")  # LEAK return
    FORGOTTEN.append(connection)


def refund_order():
    """Forgets to end its transaction."""
    connection = pool_take()
    cursor = connection.cursor()
    cursor.execute("SELECT 'refund'")  # LEAK transaction
    FORGOTTEN.append(connection)


HANDLERS = {"serve": list_orders, "return": show_invoice, "transaction": refund_order}


def main():
    """Obeys until stdin ends."""
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        try:
            for _ in range(int(number or 1)):
                HANDLERS[command]()
            print(f"ok open={OPENED}", flush=True)
        except Exception as error:  # the test prints it
            print("failed", " ".join(str(error).split()), flush=True)


main()
