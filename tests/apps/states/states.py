"""Sessions in each state: one command a line on stdin, one answer a line. `states` says where each
session is by the driver's own word, with its local port."""

import importlib
import sys

driver, host, port, user, sslmode = sys.argv[1:]
api = importlib.import_module(driver)
sessions = []
STATES = {0: "idle", 2: "in_transaction", 3: "failed_transaction"}


def run(session, statement):
    try:
        session.cursor().execute(statement)
    except api.Error:
        pass


def take_sessions():
    for statements in (["SELECT 1"], ["BEGIN"], ["BEGIN", "SELECT 1 / 0"]):
        session = api.connect(
            host=host, port=port, user=user, dbname="postgres", sslmode=sslmode
        )
        session.autocommit = True
        cursor = session.cursor()
        cursor.execute("SELECT inet_client_port()")
        sessions.append((session, cursor.fetchone()[0]))
        for statement in statements:
            run(session, statement)


def state(session):
    number = session.info.transaction_status
    return STATES.get(int(number), "other")


for line in sys.stdin:
    command, answer = line.strip(), "ok"
    if command == "open":
        take_sessions()
    elif command == "touch":
        for session, _ in sessions:
            run(session, "SELECT 1")
    elif command == "turn":
        for (session, _), statement in zip(sessions, ["BEGIN", "COMMIT", "ROLLBACK"]):
            run(session, statement)
    elif command == "states":
        answer = " ".join(["ok", *(f"{port}={state(session)}" for session, port in sessions)])
    print(answer, flush=True)
