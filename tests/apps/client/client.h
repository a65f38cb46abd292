/* What the commands of client.c and kin.c share. */
#ifndef CLIENT_H
#define CLIENT_H

#include "wire.h"

/* The connection that commands are about. */
extern struct wire current;

/* Answers a command with what errno says. */
void failed(const char *what);
/* Answers a command with the current connection's counters. */
void report(void);
/* Makes a new socket the current one; -1 with errno when it is refused. */
int open_socket(const char *address, int port, int blocking, int wait);
/* Sends the startup message and reads its answer. */
int begin_session(void);

/* Commands of kin.c. */
void do_dup(char *rest);
void do_exec(char *rest);
void do_fork(char *rest);
void do_fork_connect(char *rest);
void do_receiver(char *rest);
void do_pass(char *rest);

#endif
