/* Every way Linux has of moving bytes through a TCP socket, by name. */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <sys/types.h>

/* Sends all of `size` bytes by the flavour `how`; -1 with errno on failure, EINVAL for an unknown
 * flavour. Flavours that take several buffers split the bytes in three. */
int send_by(const char *how, int fd, const void *data, size_t size);

/* Receives at most `size` bytes by the flavour `how`; the number received, 0 at the end, -1 with
 * errno on failure. */
ssize_t receive_by(const char *how, int fd, void *data, size_t size);

/* One IORING_OP_* operation on a ring of its own; its result, or -1 with errno. */
ssize_t uring_operation(int opcode, int fd, void *data, size_t size);

#endif
