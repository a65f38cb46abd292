/* Sessions in each state, by libpq: one command a line on stdin, one answer a line. `states` says
 * where each session is by libpq's own word, with its local port. */
#include <libpq-fe.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define SESSIONS 3

static PGconn *sessions[SESSIONS];

static void run(PGconn *session, const char *statement)
{
    PQclear(PQexec(session, statement));
}

__attribute__((noinline)) static void take_sessions(const char *server)
{
    static const char *statements[SESSIONS] = {"SELECT 1", "BEGIN", "BEGIN; SELECT 1 / 0"};
    for (int i = 0; i < SESSIONS; i++) {
        sessions[i] = PQconnectdb(server);
        run(sessions[i], statements[i]);
    }
}

static const char *state(PGconn *session)
{
    switch (PQtransactionStatus(session)) {
    case PQTRANS_IDLE:
        return "idle";
    case PQTRANS_INTRANS:
        return "in_transaction";
    case PQTRANS_INERROR:
        return "failed_transaction";
    default:
        return "other";
    }
}

static void print_states(void)
{
    printf("ok");
    for (int i = 0; i < SESSIONS; i++) {
        struct sockaddr_in local;
        socklen_t length = sizeof local;
        getsockname(PQsocket(sessions[i]), (struct sockaddr *)&local, &length);
        printf(" %d=%s", ntohs(local.sin_port), state(sessions[i]));
    }
    printf("\n");
}

int main(int count, char **arguments)
{
    char server[256], line[64];
    if (count != 5)
        return 2;
    snprintf(server, sizeof server, "host=%s port=%s user=%s dbname=postgres sslmode=%s",
             arguments[1], arguments[2], arguments[3], arguments[4]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "states") == 0) {
            print_states();
            continue;
        }
        if (strcmp(line, "open") == 0) {
            take_sessions(server);
        } else if (strcmp(line, "touch") == 0) {
            for (int i = 0; i < SESSIONS; i++)
                run(sessions[i], "SELECT 1");
        } else {
            run(sessions[0], "BEGIN");
            run(sessions[1], "COMMIT");
            run(sessions[2], "ROLLBACK");
        }
        printf("ok\n");
    }
    return 0;
}
