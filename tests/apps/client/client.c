/* A PostgreSQL client that does what it is told, one command a line on stdin, and answers each with
 * one line on stdout: "ok key=value …" or "failed why". Tests need no timing with it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

struct wire current = {
    .fd = -1, .send_how = "send", .receive_how = "recv", .piece = 65536};
static const char *user = "postgres", *database = "postgres", *application = "client";

void failed(const char *what)
{
    printf("failed %s: %s\n", what, strerror(errno));
}

void report(void)
{
    printf("ok sent=%llu received=%llu backend=%u answer=%c\n", (unsigned long long)current.sent,
           (unsigned long long)current.received, current.backend,
           current.answer ? current.answer : '-');
}

static int wait_connected(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t length = sizeof error;
    if (poll(&writable, 1, -1) < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -1;
    errno = error;
    return error == 0 ? 0 : -1;
}

/* Opens a socket to `address` (4, 6 or mapped: loopback's; or an IPv4 address); with `wait` 0 it does not wait for the handshake. */
int open_socket(const char *address, int port, int blocking, int wait)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int is_v4 = strcmp(address, "4") == 0 || inet_pton(AF_INET, address, &v4.sin_addr) == 1;
    inet_pton(AF_INET6, strcmp(address, "6") == 0 ? "::1" : "::ffff:127.0.0.1", &v6.sin6_addr);
    int fd = socket(is_v4 ? AF_INET : AF_INET6,
                    SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
    int done = is_v4 ? connect(fd, (struct sockaddr *)&v4, sizeof v4)
                     : connect(fd, (struct sockaddr *)&v6, sizeof v6);
    if (done < 0 && errno == EINPROGRESS)
        done = wait ? wait_connected(fd) : 0;
    if (done < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    current.fd = fd;
    current.sent = current.received = 0;
    current.backend = 0;
    current.answer = 0;
    current.header_have = current.body_have = 0;
    return 0;
}

static int local_port(void)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (getsockname(current.fd, (struct sockaddr *)&name, &length) < 0)
        return 0;
    return ntohs(name.ss_family == AF_INET ? ((struct sockaddr_in *)&name)->sin_port
                                           : ((struct sockaddr_in6 *)&name)->sin6_port);
}

static void do_connect(char *rest)
{
    char address[16] = "4", mode[16] = "";
    int port = 0;
    sscanf(rest, "%15s %d %15s", address, &port, mode);
    int begun = strcmp(mode, "begin") == 0;
    if (open_socket(address, port, *mode == 0, !begun) < 0) {
        failed("connect");
        return;
    }
    unsigned long long cookie = 0;
    socklen_t length = sizeof cookie;
    getsockopt(current.fd, SOL_SOCKET, SO_COOKIE, &cookie, &length);
    printf("ok cookie=%llu port=%d\n", cookie, local_port());
}

int begin_session(void)
{
    return wire_startup(&current, user, database, application) < 0 ? -1 : wire_answer(&current);
}

static void do_many(char *rest)
{
    int count = 0, port = 0;
    sscanf(rest, "%d %d", &count, &port);
    for (int i = 0; i < count; i++)
        if (open_socket("4", port, 1, 1) < 0 || begin_session() < 0) {
            failed("many");
            return;
        }
    printf("ok opened=%d\n", count);
}

static void do_noise(char *rest)
{
    unsigned char noise[4096];
    size_t size = (size_t)atoi(rest) % sizeof noise;
    for (size_t i = 0; i < size; i++)
        noise[i] = (unsigned char)rand();
    if (wire_raw(&current, noise, size) < 0)
        failed("noise");
    else
        report();
}

/* Reads whatever has come, once. */
static void do_read(char *rest)
{
    (void)rest;
    char data[65536];
    ssize_t got = recv(current.fd, data, sizeof data, 0);
    if (got < 0) {
        failed("read");
        return;
    }
    current.received += (uint64_t)got;
    report();
}

static void done(int result, const char *what)
{
    if (result < 0)
        failed(what);
    else
        report();
}

static void do_application(char *rest)
{
    application = strdup(rest);
    report();
}

static void do_user(char *rest)
{
    user = strdup(rest);
    report();
}

static void do_send_by(char *rest)
{
    current.send_how = strdup(rest);
    report();
}

static void do_receive_by(char *rest)
{
    current.receive_how = strdup(rest);
    report();
}

static void do_pieces_of(char *rest)
{
    current.piece = (size_t)atoi(rest);
    report();
}

static void do_startup(char *rest)
{
    (void)rest;
    done(begin_session(), "startup");
}

static void do_greet(char *rest)
{
    (void)rest;
    done(wire_startup(&current, user, database, application), "greet");
}

static void do_query(char *rest)
{
    done(wire_message(&current, 'Q', rest) < 0 ? -1 : wire_answer(&current), "query");
}

static void do_query_in_parts(char *rest)
{
    char *sql = NULL;
    size_t part = (size_t)strtoul(rest, &sql, 10);
    int bad = part == 0 || *sql++ != ' ' || wire_message_in_parts(&current, 'Q', sql, part) < 0;
    done(bad ? -1 : wire_answer(&current), "query-in-parts");
}

/* Makes a query that many calls deep; each call's frame takes more than 64 bytes. */
static __attribute__((noinline)) int query_at_depth(int depth)
{
    volatile char frame[64];
    frame[0] = 0;
    if (depth > 0)
        return query_at_depth(depth - 1) + frame[0];
    return wire_message(&current, 'Q', "SELECT 1") < 0 ? -1 : wire_answer(&current);
}

static void do_deep(char *rest)
{
    done(query_at_depth(atoi(rest)), "deep");
}

static void do_ask(char *rest)
{
    done(wire_message(&current, 'Q', rest), "ask");
}

static void do_answer(char *rest)
{
    (void)rest;
    done(wire_answer(&current), "answer");
}

static void do_prepare(char *rest)
{
    char *sql = strchr(rest, ' ');
    if (sql)
        *sql++ = 0;
    done(!sql || wire_prepare(&current, rest, sql) < 0 ? -1 : wire_answer(&current), "prepare");
}

static void do_execute(char *rest)
{
    done(wire_execute(&current, rest) < 0 ? -1 : wire_answer(&current), "execute");
}

static void do_cancel(char *rest)
{
    (void)rest;
    done(wire_cancel(&current), "cancel");
}

static void do_copy_fail(char *rest)
{
    done(wire_message(&current, 'f', rest) < 0 ? -1 : wire_answer(&current), "copy-fail");
}

static void do_raw(char *rest)
{
    done(wire_raw(&current, rest, strlen(rest)), "raw");
}

static void do_close(char *rest)
{
    (void)rest;
    done(close(current.fd), "close");
}

/* Closes the socket without a farewell. */
static void do_reset(char *rest)
{
    (void)rest;
    struct linger at_once = {.l_onoff = 1};
    setsockopt(current.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    done(close(current.fd), "reset");
}

static void do_exit(char *rest)
{
    exit(atoi(rest));
}

static const struct {
    const char *name;
    void (*obey)(char *rest);
} commands[] = {
    {"connect", do_connect},         /* ADDRESS PORT [nonblocking|begin]: 4, 6, mapped or IPv4 */
    {"many", do_many},               /* COUNT PORT: sessions, all kept */
    {"application", do_application}, /* NAME, for the startup message */
    {"user", do_user},               /* NAME, for the startup message */
    {"send-by", do_send_by},         /* FLAVOUR of send_by() */
    {"receive-by", do_receive_by},   /* FLAVOUR of receive_by() */
    {"pieces-of", do_pieces_of},     /* BYTES asked for at once; 0: header and body apart */
    {"startup", do_startup},         /* startup message and its answer */
    {"greet", do_greet},             /* startup message only */
    {"query", do_query},             /* SQL and its answer */
    {"query-in-parts", do_query_in_parts}, /* BYTES sent at once, SQL, and its answer */
    {"deep", do_deep},               /* CALLS: a query at that depth */
    {"ask", do_ask},                 /* SQL only */
    {"prepare", do_prepare},         /* NAME SQL: Parse and Sync, and the answer; - is no name */
    {"execute", do_execute},         /* NAME: Bind, Execute and Sync, and the answer */
    {"cancel", do_cancel},           /* a request to cancel what nobody does, and nothing else */
    {"answer", do_answer},           /* the answer only */
    {"copy-fail", do_copy_fail},     /* WHY: ends a COPY FROM STDIN */
    {"raw", do_raw},                 /* TEXT as it is */
    {"noise", do_noise},             /* BYTES at random */
    {"read", do_read},               /* whatever has come, once */
    {"dup", do_dup},                 /* goes on with a duplicate of the socket */
    {"fork", do_fork},               /* a child makes a request on the same socket, and stays */
    {"fork-connect", do_fork_connect}, /* PORT: a child opens a session of its own, and stays */
    {"receiver", do_receiver},       /* starts a process that can be handed a socket */
    {"pass", do_pass},               /* hands it the socket and closes it here */
    {"close", do_close},             /* closes the socket */
    {"reset", do_reset},             /* closes it with a reset */
    {"exec", do_exec},               /* PATH: goes on as that program, with the socket */
    {"exit", do_exit},               /* STATUS */
};

static void obey(const char *name, char *rest)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0) {
            commands[i].obey(rest);
            return;
        }
    printf("failed unknown command %s\n", name);
}

/* With a descriptor as its argument it goes on with the socket of the program that executed it. */
int main(int argc, char **argv)
{
    static char line[4096];
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1) {
        current.fd = atoi(argv[1]);
        report();
    }
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *space = strchr(line, ' ');
        if (space != NULL)
            *space = 0;
        obey(line, space == NULL ? line + strlen(line) : space + 1);
    }
    return 0;
}
