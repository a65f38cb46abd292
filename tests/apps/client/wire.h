/* The client's side of PostgreSQL's protocol, version 3, by raw bytes. */
#ifndef WIRE_H
#define WIRE_H

#include <stdint.h>
#include <sys/types.h>

/* One connection, how its bytes are moved, and what was counted. */
struct wire {
    int fd;
    const char *send_how;     /* a flavour of send_by() */
    const char *receive_how;  /* a flavour of receive_by() */
    size_t piece;             /* most bytes asked for at once; 0: header and body apart */
    uint64_t sent, received;  /* payload bytes */
    uint32_t backend;         /* PID of the server's backend */
    char answer;              /* I, T or E of ReadyForQuery, or G: the server expects COPY data */
    unsigned char header[5], body[8];
    size_t header_have, body_have, body_left;
};

/* Sends the startup message. */
int wire_startup(struct wire *wire, const char *user, const char *database,
                 const char *application);
/* Sends one message of `type` with a NUL-terminated text. */
int wire_message(struct wire *wire, char type, const char *text);
/* The same, so many bytes at a time. */
int wire_message_in_parts(struct wire *wire, char type, const char *text, size_t part);
/* Parse of a statement, then Sync; the name - stands for none. */
int wire_prepare(struct wire *wire, const char *name, const char *sql);
/* Bind of a named statement without parameters, Execute and Sync. */
int wire_execute(struct wire *wire, const char *name);
/* A request to cancel what backend 1 does, where there is none. */
int wire_cancel(struct wire *wire);
/* Sends bytes as they are. */
int wire_raw(struct wire *wire, const void *data, size_t size);
/* Reads until the server is ready, wants COPY data or hangs up; -1 in the last case. */
int wire_answer(struct wire *wire);

#endif
