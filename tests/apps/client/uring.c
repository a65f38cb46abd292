/* io_uring by its raw system calls, so that no library is needed. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transfer.h"

static uint32_t *at(void *ring, uint32_t offset)
{
    return (uint32_t *)((char *)ring + offset);
}

/* Puts one entry in the submission queue, enters the kernel and takes the completion's result. */
static ssize_t submit_and_wait(int ring, const struct io_uring_params *params, void *queue,
                               struct io_uring_sqe *entries, const struct io_uring_sqe *entry)
{
    uint32_t tail = *at(queue, params->sq_off.tail);
    uint32_t index = tail & *at(queue, params->sq_off.ring_mask);
    entries[index] = *entry;
    at(queue, params->sq_off.array)[index] = index;
    __atomic_store_n(at(queue, params->sq_off.tail), tail + 1, __ATOMIC_RELEASE);

    while (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        if (errno != EINTR)
            return -1;

    uint32_t head = *at(queue, params->cq_off.head);
    struct io_uring_cqe *completions =
        (struct io_uring_cqe *)((char *)queue + params->cq_off.cqes);
    int32_t result = completions[head & *at(queue, params->cq_off.ring_mask)].res;
    __atomic_store_n(at(queue, params->cq_off.head), head + 1, __ATOMIC_RELEASE);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

ssize_t uring_operation(int opcode, int fd, void *data, size_t size)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    int ring = (int)syscall(SYS_io_uring_setup, 1, &params);
    if (ring < 0)
        return -1;

    size_t submissions = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size_t queue_size = submissions > completions ? submissions : completions;
    size_t entries_size = params.sq_entries * sizeof(struct io_uring_sqe);
    void *queue = mmap(NULL, queue_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                       IORING_OFF_SQ_RING);
    void *entries = mmap(NULL, entries_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                         ring, IORING_OFF_SQES);
    ssize_t result = -1;
    if (queue != MAP_FAILED && entries != MAP_FAILED) {
        struct io_uring_sqe entry;
        memset(&entry, 0, sizeof entry);
        entry.opcode = (uint8_t)opcode;
        entry.fd = fd;
        entry.addr = (uint64_t)(uintptr_t)data;
        entry.len = (uint32_t)size;
        result = submit_and_wait(ring, &params, queue, entries, &entry);
    }
    int saved = errno;
    if (queue != MAP_FAILED)
        munmap(queue, queue_size);
    if (entries != MAP_FAILED)
        munmap(entries, entries_size);
    close(ring);
    errno = saved;
    return result;
}
