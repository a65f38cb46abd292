"""A pool of two connections, by SQLAlchemy: one command a line on stdin, one answer a line."""

import sys
import threading
import time

import sqlalchemy

host, port, user = sys.argv[1:]
URL = f"postgresql+psycopg2://{user}@{host}:{port}/postgres?sslmode=disable&gssencmode=disable"
engine = sqlalchemy.create_engine(
    URL, pool_size=2, max_overflow=0, pool_timeout=600, isolation_level="AUTOCOMMIT"
)
forgotten = []
QUERY = sqlalchemy.text("SELECT 1")


def lose(done):
    """Forgets to return its connection."""
    connection = engine.connect()
    forgotten.append(connection)
    connection.execute(QUERY).fetchall()
    done.set()


def hold(done):
    """Keeps its connection while something else takes long."""
    with engine.connect() as connection:
        connection.execute(QUERY).fetchall()
        done.set()
        time.sleep(3600)


def checkout(done):
    """Waits for a connection."""
    done.set()
    with engine.connect() as connection:
        connection.execute(QUERY).fetchall()


def waiting():
    """The threads that the interpreter itself shows in SQLAlchemy's function."""
    count = 0
    for frame in sys._current_frames().values():
        while frame and frame.f_code.co_name != "_do_get":
            frame = frame.f_back
        count += frame is not None
    return count


WORK = {"lose": lose, "hold": hold, "wait": checkout}
for line in sys.stdin:
    if line.strip() in WORK:
        done = threading.Event()
        threading.Thread(target=WORK[line.strip()], args=(done,), daemon=True).start()
        done.wait()
    print(f"ok waiting={waiting()}", flush=True)
