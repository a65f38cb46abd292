/* One connection, used by many threads, one after the other. One command a line on stdin: each is done
 * by a thread of its own, which answers with its number and the time before and after, CLOCK_REALTIME
 * in ms. */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static PGconn *connection;
static char line[64];
static int well;

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

static void execute(const char *statement)
{
    PGresult *result = PQexec(connection, statement);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    well = well && (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK);
}

__attribute__((noinline)) static void read_price(void)
{
    execute("SELECT pg_sleep(0.05)");
    well++;
}

__attribute__((noinline)) static void place_order(void)
{
    execute("BEGIN");
    execute("SELECT pg_sleep(0.05)");
    execute("COMMIT");
    well++;
}

__attribute__((noinline)) static void forget_to_end(void)
{
    execute("BEGIN");
    well++;
}

static void *serve(void *unused)
{
    long long from = now();
    well = 1;
    if (strcmp(line, "read") == 0)
        read_price();
    else if (strcmp(line, "order") == 0)
        place_order();
    else if (strcmp(line, "begin") == 0)
        forget_to_end();
    printf("%s tid=%ld from=%lld to=%lld\n", well > 1 ? "ok" : "failed", syscall(SYS_gettid), from,
           now());
    fflush(stdout);
    return unused;
}

int main(int count, char **arguments)
{
    if (count < 2)
        return 2;
    connection = PQconnectdb(arguments[1]);
    while (fgets(line, sizeof line, stdin)) {
        pthread_t thread;
        line[strcspn(line, "\n")] = 0;
        if (pthread_create(&thread, NULL, serve, NULL) != 0)
            return 1;
        pthread_join(thread, NULL);
    }
    PQfinish(connection);
    return 0;
}
