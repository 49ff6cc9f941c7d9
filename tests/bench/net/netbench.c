/*
 * Measures a network: TCP one way, the other way, and requests of 64 bytes
 * answered by as many. The same program is both ends.
 *
 *     netbench serve PORT                     on the host, until it is killed
 *     netbench ADDRESS PORT send|receive|rr SECONDS
 *
 * The client says which by one letter; it prints "MODE UNITS SECONDS", where
 * units are bytes or answered requests.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024, REQUEST = 64 };

static char buffer[CHUNK];

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int whole(int fd, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(fd, buffer + done, bytes - done);

        if (got <= 0)
            return -1;
        done += (size_t)got;
    }
    return 0;
}

static void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void serve_one(int fd)
{
    char mode;

    no_delay(fd);
    if (read(fd, &mode, 1) != 1)
        return;
    if (mode == 's')
        while (read(fd, buffer, sizeof buffer) > 0)
            ;
    else if (mode == 'r')
        while (write(fd, buffer, sizeof buffer) > 0)
            ;
    else
        while (!whole(fd, REQUEST) && write(fd, buffer, REQUEST) == REQUEST)
            ;
}

static int serve(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    signal(SIGCHLD, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) {
        perror("netbench: bind");
        return 1;
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            return 1;
        if (fork() == 0) {
            serve_one(fd);
            _exit(0);
        }
        close(fd);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    double started, seconds;
    unsigned long long units = 0;
    int fd;

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(atoi(argv[2]));
    if (argc != 5 || !inet_aton(argv[1], &address.sin_addr)) {
        fprintf(stderr, "usage: netbench serve PORT | ADDRESS PORT send|receive|rr SECONDS\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    seconds = atof(argv[4]);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("netbench: connect");
        return 1;
    }
    no_delay(fd);
    if (write(fd, argv[3][0] == 's' ? "s" : !strcmp(argv[3], "rr") ? "q" : "r", 1) != 1)
        return 1;
    started = now();
    while (now() - started < seconds) {
        ssize_t moved = 1;

        if (argv[3][0] == 's')
            moved = write(fd, buffer, sizeof buffer);
        else if (!strcmp(argv[3], "rr"))
            moved = write(fd, buffer, REQUEST) == REQUEST && !whole(fd, REQUEST) ? 1 : -1;
        else
            moved = read(fd, buffer, sizeof buffer);
        if (moved <= 0) {
            perror("netbench");
            return 1;
        }
        units += (unsigned long long)moved;
    }
    printf("%s %llu %.3f\n", argv[3], units, now() - started);
    return 0;
}
