/* The limit of the machine: one thread that posts the same bytes and reads the answers.
 *
 * post HOST PORT CONNECTIONS COUNT < REQUEST
 *
 * Reads one whole HTTP request from standard input and sends it COUNT times over CONNECTIONS
 * kept-alive connections, the next as soon as the answer to the last has come. No signature, no
 * parser worth the name (status line and Content-Length only), nothing recorded. Prints
 * "requests cpu_seconds wall_seconds user_seconds"; ends with 1 unless every answer was a 2xx.
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

enum { ROOM = 1 << 16, MOST = 4096 };

static char request[1 << 20];
static char answers[MOST][4096];
static int have[MOST];

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

static double wall(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 1: a whole answer with 2xx. 0: more is to come. -1: something else. */
static int whole(const char *answer, int length) {
    const char *end = memmem(answer, (size_t)length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (memcmp(answer, "HTTP/1.1 2", 10) != 0) return -1;
    const char *field = strcasestr(answer, "content-length:");
    if (field == NULL || field > end) return -1;
    return length >= (end + 4 - answer) + atoi(field + 15);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int connections = atoi(argv[3]);
    long count = atol(argv[4]), sent = 0, done = 0;
    size_t length = fread(request, 1, sizeof request, stdin);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int epoll = epoll_create1(0);
    int fds[MOST];
    for (int i = 0; i < connections; i++) {
        int one = 1;
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fds[i], (struct sockaddr *)&address, sizeof address) != 0) return 1;
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (unsigned)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
    }
    double began = wall();
    for (int i = 0; i < connections && sent < count; i++, sent++)
        if (write(fds[i], request, length) != (ssize_t)length) return 1;
    static struct epoll_event events[256];
    while (done < count) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int e = 0; e < ready; e++) {
            int i = (int)events[e].data.u32;
            ssize_t got = read(fds[i], answers[i] + have[i], sizeof answers[i] - 1 - (size_t)have[i]);
            if (got <= 0) return 1;
            have[i] += (int)got;
            answers[i][have[i]] = 0;
            int state = whole(answers[i], have[i]);
            if (state < 0) return 1;
            if (state == 0) continue;
            have[i] = 0;
            done++;
            if (sent < count) {
                sent++;
                if (write(fds[i], request, length) != (ssize_t)length) return 1;
            }
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%ld %.6f %.6f %.6f\n", done, seconds(used.ru_utime) + seconds(used.ru_stime),
           wall() - began, seconds(used.ru_utime));
    return 0;
}
