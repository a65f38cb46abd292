/* The send and receive flavours of transfer.h, each as plain as its manual page. */
#define _GNU_SOURCE
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECES 3

/* Splits a buffer in PIECES vectors, the first ones of a few bytes so that a message's header never
 * lies in one piece. */
static int split(struct iovec *vectors, const void *data, size_t size)
{
    static const size_t first[PIECES - 1] = {2, 4};
    char *next = (char *)data;
    int count = 0;
    for (int i = 0; i < PIECES && size > 0; i++) {
        size_t part = i < PIECES - 1 && first[i] < size ? first[i] : size;
        vectors[count++] = (struct iovec){.iov_base = next, .iov_len = part};
        next += part;
        size -= part;
    }
    return count;
}

static ssize_t by_write(int fd, const void *data, size_t size)
{
    return write(fd, data, size);
}

static ssize_t by_send(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL);
}

static ssize_t by_sendto(int fd, const void *data, size_t size)
{
    return sendto(fd, data, size, MSG_NOSIGNAL, NULL, 0);
}

static ssize_t by_sendmsg(int fd, const void *data, size_t size)
{
    struct iovec vectors[PIECES];
    struct msghdr message = {.msg_iov = vectors};
    message.msg_iovlen = (size_t)split(vectors, data, size);
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static ssize_t by_sendmmsg(int fd, const void *data, size_t size)
{
    struct iovec vectors[PIECES];
    struct mmsghdr messages[PIECES];
    memset(messages, 0, sizeof messages);
    int count = split(vectors, data, size);
    for (int i = 0; i < count; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    int done = sendmmsg(fd, messages, (unsigned int)count, MSG_NOSIGNAL);
    ssize_t total = done < 0 ? -1 : 0;
    for (int i = 0; i < done; i++)
        total += messages[i].msg_len;
    return total;
}

static ssize_t by_writev(int fd, const void *data, size_t size)
{
    struct iovec vectors[PIECES];
    int count = split(vectors, data, size);
    return writev(fd, vectors, count);
}

static ssize_t by_more(int fd, const void *data, size_t size)
{
    size_t half = size / 2;
    ssize_t head = send(fd, data, half, MSG_NOSIGNAL | MSG_MORE);
    if (head < 0 || (size_t)head < half)
        return head;
    ssize_t rest = send(fd, (const char *)data + half, size - half, MSG_NOSIGNAL);
    return rest < 0 ? -1 : head + rest;
}

static ssize_t by_sendfile(int fd, const void *data, size_t size)
{
    int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    off_t start = 0;
    ssize_t sent = pwrite(file, data, size, 0) < 0 ? -1 : sendfile(fd, file, &start, size);
    close(file);
    return sent;
}

static ssize_t by_splice(int fd, const void *data, size_t size)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    ssize_t filled = write(ends[1], data, size);
    ssize_t sent = filled < 0 ? -1 : splice(ends[0], NULL, fd, NULL, (size_t)filled, 0);
    close(ends[0]);
    close(ends[1]);
    return sent;
}

static ssize_t by_uring_send(int fd, const void *data, size_t size)
{
    return uring_operation(IORING_OP_SEND, fd, (void *)data, size);
}

static ssize_t by_uring_write(int fd, const void *data, size_t size)
{
    return uring_operation(IORING_OP_WRITE, fd, (void *)data, size);
}

static ssize_t from_read(int fd, void *data, size_t size)
{
    return read(fd, data, size);
}

static ssize_t from_recv(int fd, void *data, size_t size)
{
    return recv(fd, data, size, 0);
}

/* Waits until there are as many bytes as are asked for. */
static ssize_t from_recv_all(int fd, void *data, size_t size)
{
    return recv(fd, data, size, MSG_WAITALL);
}

static ssize_t from_recvfrom(int fd, void *data, size_t size)
{
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    return recvfrom(fd, data, size, 0, (struct sockaddr *)&from, &length);
}

/* Looks before it takes: the bytes seen by the first call must not be counted twice. */
static ssize_t from_peek(int fd, void *data, size_t size)
{
    ssize_t seen = recv(fd, data, size, MSG_PEEK);
    return seen <= 0 ? seen : recv(fd, data, (size_t)seen, 0);
}

static ssize_t from_recvmsg(int fd, void *data, size_t size)
{
    struct iovec vectors[PIECES];
    struct msghdr message = {.msg_iov = vectors};
    message.msg_iovlen = (size_t)split(vectors, data, size);
    return recvmsg(fd, &message, 0);
}

static ssize_t from_recvmmsg(int fd, void *data, size_t size)
{
    struct iovec vector = {.iov_base = data, .iov_len = size};
    struct mmsghdr message;
    memset(&message, 0, sizeof message);
    message.msg_hdr = (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1};
    int done = recvmmsg(fd, &message, 1, 0, NULL);
    return done <= 0 ? done : (ssize_t)message.msg_len;
}

static ssize_t from_readv(int fd, void *data, size_t size)
{
    struct iovec vectors[PIECES];
    int count = split(vectors, data, size);
    return readv(fd, vectors, count);
}

static ssize_t from_splice(int fd, void *data, size_t size)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    ssize_t moved = splice(fd, NULL, ends[1], NULL, size, 0);
    ssize_t got = moved <= 0 ? moved : read(ends[0], data, (size_t)moved);
    close(ends[0]);
    close(ends[1]);
    return got;
}

static ssize_t from_uring_recv(int fd, void *data, size_t size)
{
    return uring_operation(IORING_OP_RECV, fd, data, size);
}

static ssize_t from_uring_read(int fd, void *data, size_t size)
{
    return uring_operation(IORING_OP_READ, fd, data, size);
}

static const struct {
    const char *name;
    ssize_t (*call)(int, const void *, size_t);
} senders[] = {
    {"write", by_write},       {"send", by_send},         {"sendto", by_sendto},
    {"sendmsg", by_sendmsg},   {"sendmmsg", by_sendmmsg}, {"writev", by_writev},
    {"send_more", by_more},    {"sendfile", by_sendfile}, {"splice", by_splice},
    {"io_uring_send", by_uring_send},                     {"io_uring_write", by_uring_write},
};

static const struct {
    const char *name;
    ssize_t (*call)(int, void *, size_t);
} receivers[] = {
    {"read", from_read},       {"recv", from_recv},         {"recvfrom", from_recvfrom},
    {"peek", from_peek},       {"recvmsg", from_recvmsg},   {"recvmmsg", from_recvmmsg},
    {"readv", from_readv},     {"splice", from_splice},     {"recv_all", from_recv_all},
    {"io_uring_recv", from_uring_recv},                     {"io_uring_read", from_uring_read},
};

int send_by(const char *how, int fd, const void *data, size_t size)
{
    for (size_t i = 0; i < sizeof senders / sizeof senders[0]; i++) {
        if (strcmp(senders[i].name, how) != 0)
            continue;
        const char *next = data;
        while (size > 0) {
            ssize_t sent = senders[i].call(fd, next, size);
            if (sent < 0)
                return -1;
            next += sent;
            size -= (size_t)sent;
        }
        return 0;
    }
    errno = EINVAL;
    return -1;
}

ssize_t receive_by(const char *how, int fd, void *data, size_t size)
{
    for (size_t i = 0; i < sizeof receivers / sizeof receivers[0]; i++)
        if (strcmp(receivers[i].name, how) == 0)
            return receivers[i].call(fd, data, size);
    errno = EINVAL;
    return -1;
}
