/* The floor of the floor: posts the same bytes again and again and waits for each answer.
 *
 *   bare PORT CONNECTIONS COUNT FILE      FILE holds one whole request
 *
 * One thread, one epoll, one request under way on each connection. Prints what it cost as one line
 * of JSON; ends with 1 when an answer is not a 200.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char bytes[1 << 20];
static size_t length;
static long left_to_send, left_to_hear;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void post(int fd) {
    if (left_to_send <= 0) return;
    left_to_send--;
    if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length) fail("send");
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double wall(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 1 when a whole answer is there */
static int whole(const char *p, size_t n) {
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (n < 12 || memcmp(p + 9, "200", 3)) {
        fprintf(stderr, "not a 200: %.40s\n", p);
        exit(1);
    }
    const char *l = memmem(p, (size_t)(end - p), "Content-Length: ", 16);
    if (!l) fail("no Content-Length");
    return n >= (size_t)(end + 4 - p) + (size_t)atoi(l + 16);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int connections = atoi(argv[2]), epoll = epoll_create1(0);
    long count = atol(argv[3]);
    FILE *f = fopen(argv[4], "rb");
    if (!f) fail(argv[4]);
    length = fread(bytes, 1, sizeof bytes, f);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct { int fd; size_t n; char buf[4096]; } *conns = calloc((size_t)connections, sizeof *conns);
    for (int i = 0; i < connections; i++) {
        int one = 1, fd = conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a)) fail("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (unsigned)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
    left_to_send = left_to_hear = count;
    double c0 = cpu(), w0 = wall();
    for (int i = 0; i < connections; i++) post(conns[i].fd);
    struct epoll_event ready[256];
    while (left_to_hear > 0) {
        int n = epoll_wait(epoll, ready, 256, 10000);
        if (n <= 0) fail("no answer within 10 s");
        for (int i = 0; i < n; i++) {
            unsigned k = ready[i].data.u32;
            ssize_t got = recv(conns[k].fd, conns[k].buf + conns[k].n, 4096 - conns[k].n, 0);
            if (got <= 0) fail("recv");
            conns[k].n += (size_t)got;
            if (whole(conns[k].buf, conns[k].n)) {
                conns[k].n = 0;
                left_to_hear--;
                post(conns[k].fd);
            }
        }
    }
    printf("{\"requests\": %ld, \"wall_seconds\": %.6f, \"cpu_seconds\": %.6f}\n", count,
           wall() - w0, cpu() - c0);
    return 0;
}
