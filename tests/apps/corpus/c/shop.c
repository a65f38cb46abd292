/* A shop's back office by libpq, with a pool of its own and threads that serve from it.
 *
 * Argument: the pattern. It begins at a line on stdin and ends at another. */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define HANDLER __attribute__((noinline)) static

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static PGconn *spare[256]; /* last given, first taken */
static int spares, open_connections;
static volatile int enough; /* whether the pattern is to end */
static int lifetime; /* seconds, 0: for ever */
static int keep = 5; /* spare connections that are kept */

static int setting(const char *name)
{
    const char *value = getenv(name);
    return value == NULL ? 0 : atoi(value);
}

static void pause_ms(int milliseconds)
{
    double varied = milliseconds * (0.67 + 0.66 * random() / RAND_MAX);
    usleep((useconds_t)(varied * 1000));
}

static PGconn *dial(int port)
{
    char where[64];
    snprintf(where, sizeof where, "host=127.0.0.1 port=%d", port);
    PGconn *connection = PQconnectdb(where);
    if (PQstatus(connection) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(connection));
        PQfinish(connection);
        return NULL;
    }
    return connection;
}

/* When the connections were opened, by their local ports: for a pool that limits lifetimes. */
static time_t born[65536];

static int port_of(PGconn *connection)
{
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    getsockname(PQsocket(connection), (struct sockaddr *)&own, &size);
    return ntohs(own.sin_port);
}

HANDLER PGconn *pool_take(void)
{
    PGconn *connection = NULL;
    pthread_mutex_lock(&lock);
    if (spares > 0)
        connection = spare[--spares];
    int may_open = connection == NULL && open_connections < setting("CORPUS_POOL");
    open_connections += may_open;
    pthread_mutex_unlock(&lock);
    if (may_open) {
        connection = dial(setting("PGPORT"));
        if (connection != NULL)
            born[port_of(connection)] = time(NULL);
    }
    return connection;
}

HANDLER void pool_give(PGconn *connection)
{
    int old = lifetime && time(NULL) - born[port_of(connection)] > lifetime;
    int dead = PQstatus(connection) != CONNECTION_OK;
    pthread_mutex_lock(&lock);
    int kept = !old && !dead && spares < keep;
    if (kept)
        spare[spares++] = connection;
    else
        open_connections--;
    pthread_mutex_unlock(&lock);
    if (!kept)
        PQfinish(connection);
}

static void leaked(PGconn *connection)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    printf("leak %lld %d\n", now.tv_sec * 1000LL + now.tv_usec / 1000,
           connection == NULL ? 0 : port_of(connection));
}

/* Handlers ask by themselves: the stack of a request ends in the one that made it. */
#define ask(connection, query) went_well(PQexec(connection, query))

static int went_well(PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

HANDLER void list_orders(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "select id, customer from orders order by id desc limit 20");
    pool_give(connection);
}

HANDLER void place_order(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "begin");
    ask(connection, "insert into orders (customer, cents) values ('customer-7', 100)");
    ask(connection, "commit");
    pool_give(connection);
}

/* Looks at the first row of a big result and loses interest. */
HANDLER void export_invoices(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    PQsendQuery(connection, "select repeat('x', 500) from orders, generate_series(1, 40)");
    PQsetSingleRowMode(connection);
    PQclear(PQgetResult(connection));
    leaked(connection);
}

HANDLER void reserve_stock(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "begin");
    ask(connection, "select 0 from orders limit 1");
    leaked(connection);
}

HANDLER void apply_coupon(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "begin");
    if (!ask(connection, "update orders set cents = cents / 0 where id = 1")) {
        leaked(connection);
        return;
    }
    ask(connection, "commit");
    pool_give(connection);
}

HANDLER void customer_report(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "select count(*) from orders");
    leaked(connection);
}

HANDLER void import_order(void)
{
    static int calls;
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "select count(*) from orders");
    if (++calls % 3 == 0) {
        leaked(connection);
        return;
    }
    pool_give(connection);
}

/* Loses one connection in a thousand. */
HANDLER void sync_prices(void)
{
    for (int number = 1; number <= 1000; number++) {
        PGconn *connection = pool_take();
        if (connection == NULL)
            return;
        ask(connection, "select 1");
        if (number == 1000)
            leaked(connection);
        else
            pool_give(connection);
    }
}

HANDLER void sync_inventory(void)
{
    PGconn *connection = dial(setting("PGPORT"));
    if (connection == NULL)
        return;
    ask(connection, "select count(*) from orders");
    leaked(connection);
}

HANDLER void browse_catalogue(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "begin");
    ask(connection, "declare page cursor for select id from orders");
    ask(connection, "fetch 10 from page");
    leaked(connection);
}

HANDLER void bulk_import(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "copy imported from stdin");
    for (int row = 0; row < 1000; row++)
        PQputCopyData(connection, "a customer with a long name\t100\n", 32);
    PQflush(connection);
    leaked(connection);
}

HANDLER void *wait_for_provider(void *unused)
{
    (void)unused;
    struct sockaddr_in provider = {.sin_family = AF_INET, .sin_port = htons(setting("CORPUS_HOLE"))};
    provider.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char answer;
    if (connect(fd, (struct sockaddr *)&provider, sizeof provider) == 0)
        read(fd, &answer, 1);
    close(fd);
    return NULL;
}

/* Holds its connection while it waits for somebody who never answers. */
HANDLER void *charge_card(void *unused)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return NULL;
    ask(connection, "select count(*) from orders");
    leaked(connection);
    wait_for_provider(unused);
    pool_give(connection);
    return NULL;
}

HANDLER void *query_warehouse(void *unused)
{
    (void)unused;
    char where[64];
    snprintf(where, sizeof where, "host=127.0.0.1 port=%d", setting("CORPUS_HOLE"));
    leaked(NULL);
    PQconnectdb(where);
    return NULL;
}

static void on_a_thread(void *(*work)(void *))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) == 0)
        pthread_detach(thread);
}

static void stuck(void) { on_a_thread(charge_card); }
static void connect_hang(void) { on_a_thread(query_warehouse); }

HANDLER void burst(int size)
{
    PGconn *held[64];
    int have = 0;
    while (have < size && (held[have] = pool_take()) != NULL)
        ask(held[have++], "select count(*) from orders where cents < 100");
    while (have > 0)
        pool_give(held[--have]);
}

static void bursty(void)
{
    keep = 30;
    burst(1 + random() % 25);
    pause_ms(setting("CORPUS_EVERY"));
}

static void idle(void)
{
    static int done;
    keep = 20;
    if (!done++)
        burst(9);
}

static void warm_up(void)
{
    static int done;
    keep = 50;
    if (!done++)
        burst(50);
}

static void rotation(void)
{
    lifetime = 3;
    keep = 8;
    burst(1 + random() % 8);
}

static void per_request(void)
{
    PGconn *connection = dial(setting("PGPORT"));
    if (connection == NULL)
        return;
    ask(connection, "select count(*) from orders");
    PQfinish(connection);
}

static void listen_for_orders(void)
{
    PGconn *connection = dial(setting("PGPORT"));
    ask(connection, "listen orders");
    for (;;) {
        fd_set readable;
        FD_ZERO(&readable);
        FD_SET(PQsocket(connection), &readable);
        select(PQsocket(connection) + 1, &readable, NULL, NULL, NULL);
        PQconsumeInput(connection);
    }
}

static void long_report(void)
{
    PGconn *connection = pool_take();
    if (connection == NULL)
        return;
    ask(connection, "select pg_sleep(9 + 5 * random())");
    pool_give(connection);
}

/* A worker with a connection of its own and little to do. */
static void *own_connection(void *unused)
{
    PGconn *connection = dial(setting("PGPORT"));
    for (;;) {
        ask(connection, "select count(*) from orders");
        usleep(2000000 + random() % 10000000);
    }
    return unused;
}

static void worker_owned(void)
{
    static int workers;
    if (workers++ < 8)
        on_a_thread(own_connection);
}

/* A queue instead of a stack: every spare connection is used in turn, rarely. */
static void keepalive(void)
{
    keep = 8;
    burst(8);
    pause_ms(2000);
}

struct pattern {
    const char *name;
    void (*act)(void);
} patterns[] = {
    {"rows", export_invoices},
    {"transaction", reserve_stock},
    {"failed_transaction", apply_coupon},
    {"not_returned", customer_report},
    {"error_path", import_order},
    {"rare", sync_prices},
    {"connection_per_request", sync_inventory},
    {"cursor", browse_catalogue},
    {"copy_open", bulk_import},
    {"stuck", stuck},
    {"connect_hang", connect_hang},
    {"steady", NULL},
    {"idle", idle},
    {"warm_up", warm_up},
    {"bursty", bursty},
    {"rotation", rotation},
    {"per_request", per_request},
    {"listen", listen_for_orders},
    {"long_report", long_report},
    {"worker_owned", worker_owned},
    {"keepalive", keepalive},
};

static void *serve(void *unused)
{
    for (;;) {
        if (random() % 3 == 0)
            place_order();
        else
            list_orders();
        pause_ms(setting("CORPUS_LOAD"));
    }
    return unused;
}

static void *follow(void *pattern)
{
    void (*act)(void) = ((struct pattern *)pattern)->act;
    while (!enough) {
        act();
        pause_ms(setting("CORPUS_EVERY"));
    }
    return NULL;
}

int main(int count, char **arguments)
{
    char line[64];
    struct pattern *pattern = NULL;
    for (size_t i = 0; count == 2 && i < sizeof patterns / sizeof *patterns; i++)
        if (strcmp(patterns[i].name, arguments[1]) == 0)
            pattern = &patterns[i];
    if (pattern == NULL) {
        fprintf(stderr, "unknown pattern\n");
        return 2;
    }
    srandom(time(NULL) ^ getpid());
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(pattern->name, "idle") != 0)
        for (int i = 0; i < 2; i++)
            on_a_thread(serve);
    printf("ready\n");
    if (fgets(line, sizeof line, stdin) == NULL)
        return 0;
    pthread_t thread;
    pthread_create(&thread, NULL, follow, pattern);
    while (fgets(line, sizeof line, stdin) != NULL)
        enough = 1;
    return 0;
}
