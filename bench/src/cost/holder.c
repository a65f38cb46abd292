/* Opens COUNT connections to PORT, says so, and holds them until its input ends. Of every BACKLOG
   connections, counted from FIRST on, each goes to a loopback address of its own. With TALK each sends a startup message. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	int port = atoi(argv[1]), first = atoi(argv[2]), count = atoi(argv[3]), backlog = atoi(argv[4]);
	int talk = atoi(argv[5]);
	static const char startup[] = "\0\0\0\x11\0\3\0\0user\0u\0\0";
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int number = first; number < first + count; number++) {
		struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(port) };
		server.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / backlog);
		int connection = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(connection, (struct sockaddr *)&server, sizeof server) != 0) {
			perror("connect");
			return 1;
		}
		if (talk && write(connection, startup, 17) != 17) {
			perror("write");
			return 1;
		}
	}
	puts("held");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
