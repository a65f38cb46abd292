/* An order service with a small connection pool, healthy and leaking request handlers, and a
 * stdin: one command a line, each answered with one line, "ok …" or "failed why".
 *
 * A comment `LEAK name` marks the line that makes a handler's last request; tests look it up. */
#include <libpq-fe.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLER __attribute__((noinline)) static
#define MOST 64

static const char *server;      /* connection string */
static PGconn *idle[MOST];      /* the pool: last returned, first taken */
static int idle_count, open_count, cap = MOST;
static PGconn *forgotten[MOST]; /* what the leaking handlers never returned, for `remember` */
static int forgotten_count;
static char trouble[256];       /* why the latest handler failed */

/* Takes a connection from the pool, opening one when none is idle; NULL when that cannot be. */
HANDLER PGconn *pool_take(void)
{
    if (idle_count > 0)
        return idle[--idle_count];
    if (open_count >= cap) {
        snprintf(trouble, sizeof trouble, "the pool is exhausted");
        return NULL;
    }
    PGconn *connection = PQconnectdb(server);
    if (PQstatus(connection) != CONNECTION_OK) {
        snprintf(trouble, sizeof trouble, "%.200s", PQerrorMessage(connection));
        trouble[strcspn(trouble, "\n")] = 0;
        PQfinish(connection);
        return NULL;
    }
    open_count++;
    return connection;
}

HANDLER void pool_give(PGconn *connection)
{
    idle[idle_count++] = connection;
}

static void forget(PGconn *connection)
{
    if (forgotten_count < MOST)
        forgotten[forgotten_count++] = connection;
}

/* Whether a statement did what it should; its result is freed. */
static int went_well(PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    snprintf(trouble, sizeof trouble, "%.200s", PQresultErrorMessage(result));
    trouble[strcspn(trouble, "\n")] = 0;
    PQclear(result);
    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

HANDLER int list_orders(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return 0;
    int well = went_well(PQexec(connection, "SELECT generate_series(1, 10)"));
    pool_give(connection);
    return well;
}

/* Forgets to return its connection. */
HANDLER int show_invoice(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return 0;
    int well = went_well(PQexec(connection, "SELECT 'invoice'")); /* LEAK return */
    forget(connection);
    return well;
}

/* Forgets to end its transaction. */
HANDLER int refund_order(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return 0;
    int well = went_well(PQexec(connection, "BEGIN"));
    well = well && went_well(PQexec(connection, "SELECT 'refund'")); /* LEAK transaction */
    forget(connection);
    return well;
}

/* Asks for a big result, looks at its first row and loses interest. */
HANDLER int export_orders(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return 0;
    int well = PQsendQuery(connection, "SELECT repeat('x', 1000) FROM generate_series(1, 50000)"); /* LEAK rows */
    PQsetSingleRowMode(connection);
    PQclear(PQgetResult(connection));
    forget(connection);
    return well;
}

/* Waits for notifications, as a healthy listener does. */
HANDLER int listen_for_orders(void)
{
    PGconn *connection = pool_take();
    return connection != NULL && went_well(PQexec(connection, "LISTEN orders"));
}

/* Asks for something that takes a minute. */
HANDLER int close_books(void)
{
    PGconn *connection = pool_take();
    return connection != NULL && PQsendQuery(connection, "SELECT pg_sleep(60)");
}

/* Uses `count` connections at once, then returns them all. */
static int burst(int count)
{
    PGconn *taken[MOST];
    int have = 0, well = 1;
    while (well && have < count && have < MOST) {
        taken[have] = pool_take();
        well = taken[have] != NULL;
        if (well)
            well = went_well(PQexec(taken[have++], "SELECT 1"));
    }
    while (have > 0)
        pool_give(taken[--have]);
    return well;
}

/* Replaces the pool's connections by fresh ones, as a maximum lifetime does. */
static int rotate(void)
{
    int count = idle_count;
    while (idle_count > 0) {
        PQfinish(idle[--idle_count]);
        open_count--;
    }
    return burst(count);
}

/* Ends a forgotten connection's transaction and returns it to the pool. */
static int remember(void)
{
    if (forgotten_count == 0)
        return 0;
    PGconn *connection = forgotten[--forgotten_count];
    int well = went_well(PQexec(connection, "ROLLBACK"));
    pool_give(connection);
    return well;
}

static int limit_to(int connections)
{
    cap = connections < MOST ? connections : MOST;
    return 1;
}

static int serve(int requests)
{
    int well = 1;
    while (well && requests-- > 0)
        well = list_orders();
    return well;
}

static int obey(const char *command, int number)
{
    if (strcmp(command, "serve") == 0)
        return serve(number);
    if (strcmp(command, "burst") == 0)
        return burst(number);
    if (strcmp(command, "limit") == 0)
        return limit_to(number);
    if (strcmp(command, "rotate") == 0)
        return rotate();
    if (strcmp(command, "remember") == 0)
        return remember();
    if (strcmp(command, "return") == 0)
        return show_invoice();
    if (strcmp(command, "transaction") == 0)
        return refund_order();
    if (strcmp(command, "rows") == 0)
        return export_orders();
    if (strcmp(command, "listen") == 0)
        return listen_for_orders();
    if (strcmp(command, "long") == 0)
        return close_books();
    snprintf(trouble, sizeof trouble, "unknown command %.200s", command);
    return 0;
}

struct order {
    const char *command;
    int number, well;
};

static void *worker(void *argument)
{
    struct order *order = argument;
    order->well = obey(order->command, order->number);
    return NULL;
}

int main(int count, char **arguments)
{
    char line[256];
    if (count < 2)
        return 2;
    server = arguments[1];
    int threaded = count > 2 && strcmp(arguments[2], "threaded") == 0;
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char command[32] = "";
        struct order order = {.command = command, .number = 1};
        sscanf(line, "%31s %d", command, &order.number);
        if (threaded) {
            pthread_t thread;
            pthread_create(&thread, NULL, worker, &order);
            pthread_join(thread, NULL);
        } else {
            worker(&order);
        }
        if (order.well)
            printf("ok open=%d backend=%d\n", open_count,
                   forgotten_count ? PQbackendPID(forgotten[forgotten_count - 1]) : 0);
        else
            printf("failed %s\n", trouble);
    }
    return 0;
}
