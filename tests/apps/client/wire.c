#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "transfer.h"

#define WHOLE 65536

int wire_raw(struct wire *wire, const void *data, size_t size)
{
    if (send_by(wire->send_how, wire->fd, data, size) < 0)
        return -1;
    wire->sent += size;
    return 0;
}

int wire_startup(struct wire *wire, const char *user, const char *database,
                 const char *application)
{
    char message[512];
    const char *words[] = {"user", user, "database", database, "application_name", application};
    size_t size = 8;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]) + 1;
        if (size + length + 1 > sizeof message) {
            errno = EMSGSIZE;
            return -1;
        }
        memcpy(message + size, words[i], length);
        size += length;
    }
    message[size++] = 0;
    uint32_t numbers[] = {htonl((uint32_t)size), htonl(3 << 16)};
    memcpy(message, numbers, sizeof numbers);
    return wire_raw(wire, message, size);
}

int wire_message(struct wire *wire, char type, const char *text)
{
    return wire_message_in_parts(wire, type, text, SIZE_MAX);
}

int wire_message_in_parts(struct wire *wire, char type, const char *text, size_t part)
{
    char message[2048];
    size_t length = strlen(text) + 1;
    if (length + 5 > sizeof message) {
        errno = EMSGSIZE;
        return -1;
    }
    uint32_t number = htonl((uint32_t)(length + 4));
    message[0] = type;
    memcpy(message + 1, &number, sizeof number);
    memcpy(message + 5, text, length);
    for (size_t sent = 0; sent < length + 5; sent += part) {
        size_t left = length + 5 - sent;
        if (left <= part)
            return wire_raw(wire, message + sent, left);
        if (wire_raw(wire, message + sent, part) < 0)
            return -1;
    }
    return 0;
}

int wire_prepare(struct wire *wire, const char *name, const char *sql)
{
    static const char end[] = {'S', 0, 0, 0, 4};
    char message[2048];
    const char *words[] = {strcmp(name, "-") == 0 ? "" : name, sql};
    size_t size = 5;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]) + 1;
        if (size + length + 2 + sizeof end > sizeof message) {
            errno = EMSGSIZE;
            return -1;
        }
        memcpy(message + size, words[i], length);
        size += length;
    }
    /* No types of parameters. */
    message[size++] = 0;
    message[size++] = 0;
    uint32_t number = htonl((uint32_t)(size - 1));
    message[0] = 'P';
    memcpy(message + 1, &number, sizeof number);
    memcpy(message + size, end, sizeof end);
    return wire_raw(wire, message, size + sizeof end);
}

int wire_execute(struct wire *wire, const char *name)
{
    /* No formats, values and formats of results; then Execute of all rows, and Sync. */
    static const char rest[] = {0, 0, 0, 0, 0, 0, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0, 'S', 0, 0, 0, 4};
    char message[128] = {'B'};
    size_t length = strlen(name) + 1, size = 6;
    if (size + length + sizeof rest > sizeof message) {
        errno = EMSGSIZE;
        return -1;
    }
    /* The unnamed portal, whose empty name is there already. */
    memcpy(message + size, name, length);
    size += length;
    uint32_t number = htonl((uint32_t)(size + 6 - 1));
    memcpy(message + 1, &number, sizeof number);
    memcpy(message + size, rest, sizeof rest);
    return wire_raw(wire, message, size + sizeof rest);
}

int wire_cancel(struct wire *wire)
{
    uint32_t numbers[] = {htonl(16), htonl(80877102), htonl(1), htonl(1)};
    return wire_raw(wire, numbers, sizeof numbers);
}

static uint32_t number_at(const unsigned char *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return ntohl(number);
}

/* Takes note of a whole message. */
static void finish_message(struct wire *wire)
{
    switch (wire->header[0]) {
    case 'Z': wire->answer = (char)wire->body[0]; break;
    case 'G': wire->answer = 'G'; break;
    case 'K': wire->backend = number_at(wire->body); break;
    }
    wire->header_have = wire->body_have = 0;
}

static void take(struct wire *wire, const unsigned char *data, size_t size)
{
    while (size > 0) {
        if (wire->header_have < sizeof wire->header) {
            wire->header[wire->header_have++] = *data++;
            size--;
            if (wire->header_have < sizeof wire->header)
                continue;
            wire->body_left = number_at(wire->header + 1) - 4;
        } else {
            if (wire->body_have < sizeof wire->body)
                wire->body[wire->body_have++] = *data;
            data++;
            size--;
            wire->body_left--;
        }
        if (wire->body_left == 0)
            finish_message(wire);
    }
}

static size_t ask_for(const struct wire *wire)
{
    if (wire->piece > 0)
        return wire->piece < WHOLE ? wire->piece : WHOLE;
    if (wire->header_have < sizeof wire->header)
        return sizeof wire->header - wire->header_have;
    return wire->body_left < WHOLE ? wire->body_left : WHOLE;
}

int wire_answer(struct wire *wire)
{
    static unsigned char data[WHOLE];
    wire->answer = 0;
    while (wire->answer == 0) {
        ssize_t got = receive_by(wire->receive_how, wire->fd, data, ask_for(wire));
        if (got < 0 && errno == EAGAIN) {
            struct pollfd readable = {.fd = wire->fd, .events = POLLIN};
            poll(&readable, 1, -1);
            continue;
        }
        if (got == 0)
            errno = ECONNRESET;
        if (got <= 0)
            return -1;
        wire->received += (uint64_t)got;
        take(wire, data, (size_t)got);
    }
    return 0;
}
