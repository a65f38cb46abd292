/* Talks to the server and to the test; the places are elsewhere. */

#include "places.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

static struct sockaddr_in server;
static int fd;
static int connected;

static void fail(const char *what)
{
	printf("error %s\n", what);
	exit(1);
}

/* Reads until the server is ready for a query. */
static void await_ready(void)
{
	static char bytes[8192];
	size_t length = 0;
	while (length < 6 || memcmp(bytes + length - 6, "Z\0\0\0\5I", 6) != 0) {
		ssize_t got = recv(fd, bytes + length, sizeof bytes - length, 0);
		if (got <= 0)
			fail("recv");
		length += (size_t)got;
	}
}

static void greet(void)
{
	static const char startup[] = "\0\0\0\x29\0\3\0\0user\0postgres\0database\0postgres\0";
	if (send(fd, startup, sizeof startup, 0) != sizeof startup)
		fail("startup");
	await_ready();
}

int call_server(void)
{
	static const char query[] = "Q\0\0\0\x0dSELECT 1";
	ssize_t result;
	if (connected)
		result = send(fd, query, sizeof query, 0);
	else
		result = connect(fd, (struct sockaddr *)&server, sizeof server);
	if (result < 0)
		fail("call");
	return (int)result;
}

/* Opens a connection, and uses it or leaves it at that. */
static void visit(const struct place *place, int uses)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof cookie;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	connected = 0;
	place->enter();
	if (uses) {
		connected = 1;
		greet();
		place->enter();
		await_ready();
	}
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0)
		fail("getsockopt");
	printf("ok fd=%d cookie=%llu\n", fd, (unsigned long long)cookie);
}

/* Sends a thousand requests on the last connection, one after the other. */
static void request_much(void)
{
	for (int i = 0; i < 1000; i++) {
		if (call_server() < 0)
			fail("request");
		await_ready();
	}
	printf("ok\n");
}

int serve(int port, const struct place *places)
{
	char line[128];
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)port);
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin) != NULL) {
		const struct place *place = places;
		const char *name = line;
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "list") == 0) {
			printf("ok places=");
			for (; place->name != NULL; place++)
				printf("%s%s", place == places ? "" : ",", place->name);
			printf("\n");
			continue;
		}
		if (strcmp(line, "requests") == 0) {
			request_much();
			continue;
		}
		if (strncmp(line, "open ", 5) == 0)
			name = line + 5;
		while (place->name != NULL && strcmp(place->name, name) != 0)
			place++;
		if (place->name == NULL)
			fail("no such place");
		visit(place, name == line);
	}
	return 0;
}
