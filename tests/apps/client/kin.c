/* Sockets that are shared with other processes or known by other descriptors. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

static int receiver = -1; /* socket to the process that is handed file descriptors */

/* A child that dies with its parent. */
static pid_t child(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

/* Forks a child that makes a request of its own on the inherited socket, and stays. */
void do_fork(char *rest)
{
    (void)rest;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        failed("pipe");
        return;
    }
    pid_t pid = child();
    if (pid == 0) {
        int bad = wire_message(&current, 'Q', "SELECT 2") < 0 || wire_answer(&current) < 0;
        uint64_t totals[] = {current.sent, current.received};
        if (bad || write(ends[1], totals, sizeof totals) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    uint64_t totals[2];
    if (read(ends[0], totals, sizeof totals) != sizeof totals)
        failed("child");
    else
        printf("ok child=%d sent=%llu received=%llu\n", pid, (unsigned long long)totals[0],
               (unsigned long long)totals[1]);
    close(ends[0]);
    close(ends[1]);
}

/* Forks a child that opens a connection of its own. */
void do_fork_connect(char *rest)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        failed("pipe");
        return;
    }
    pid_t pid = child();
    if (pid == 0) {
        char done = open_socket("4", atoi(rest), 1, 1) == 0 && begin_session() == 0;
        if (write(ends[1], &done, 1) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    char done = 0;
    if (read(ends[0], &done, 1) == 1 && done)
        printf("ok child=%d\n", pid);
    else
        failed("child");
    close(ends[0]);
    close(ends[1]);
}

/* The process that takes over a file descriptor, makes a request on it and keeps it. */
static void receive_descriptor(int from)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    uint64_t totals[2];
    struct iovec vector = {.iov_base = totals, .iov_len = sizeof totals};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    if (recvmsg(from, &message, 0) < 0 || CMSG_FIRSTHDR(&message) == NULL)
        _exit(1);
    memcpy(&current.fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof current.fd);
    current.sent = totals[0];
    current.received = totals[1];
    if (read(from, &byte, 1) != 1)
        _exit(1);
    if (wire_message(&current, 'Q', "SELECT 3") < 0 || wire_answer(&current) < 0)
        _exit(1);
    totals[0] = current.sent;
    totals[1] = current.received;
    if (write(from, totals, sizeof totals) < 0)
        _exit(1);
    for (;;)
        pause();
}

void do_receiver(char *rest)
{
    (void)rest;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        failed("socketpair");
        return;
    }
    pid_t pid = child();
    if (pid == 0) {
        close(ends[0]);
        receive_descriptor(ends[1]);
    }
    close(ends[1]);
    receiver = ends[0];
    printf("ok child=%d\n", pid);
}

/* Hands the socket to the receiver, closes it here, and lets the receiver use it. */
void do_pass(char *rest)
{
    (void)rest;
    char control[CMSG_SPACE(sizeof(int))] = {0};
    uint64_t totals[2] = {current.sent, current.received};
    struct iovec vector = {.iov_base = totals, .iov_len = sizeof totals};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &current.fd, sizeof(int));
    if (sendmsg(receiver, &message, 0) < 0 || close(current.fd) < 0 ||
        write(receiver, "", 1) != 1 || read(receiver, totals, sizeof totals) != sizeof totals)
        failed("pass");
    else
        printf("ok sent=%llu received=%llu\n", (unsigned long long)totals[0],
               (unsigned long long)totals[1]);
    current.fd = -1;
}

/* Duplicates the socket and closes the original descriptor. */
void do_dup(char *rest)
{
    (void)rest;
    int copy = fcntl(current.fd, F_DUPFD_CLOEXEC, 100);
    if (copy < 0 || close(current.fd) < 0) {
        failed("dup");
        return;
    }
    current.fd = copy;
    report();
}

/* Goes on as another program, which inherits the socket and answers for this one. */
void do_exec(char *rest)
{
    char descriptor[16];
    snprintf(descriptor, sizeof descriptor, "%d", current.fd);
    fcntl(current.fd, F_SETFD, 0);
    execl(rest, rest, descriptor, NULL);
    failed("exec");
}
