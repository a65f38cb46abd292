/* How the programs of this directory talk to the server and to the test. */

#ifndef PLACES_H
#define PLACES_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a place does twice: connect first, send a query the second time. */
int call_server(void);

/* A place: code that calls `call_server` in a way of its own. */
struct place {
	const char *name;
	void (*enter)(void);
};

/* Serves the test: for each line on stdin, enters the place of that name; `list` lists them. */
int serve(int port, const struct place *places);

#ifdef __cplusplus
}
#endif

#endif
