/* A receiver that costs next to nothing: what the bench posts to.
 *
 * sink [--vary] [--status N] [--hosts N] PORT
 *
 * One thread, epoll, HTTP/1.1 with keep-alive and Content-Length bodies; every POST is answered
 * with N (default 200) and two bytes. GET /count answers the number of POSTs so far; that is how
 * a bench proves that each event arrived. --vary puts a counter into each answer, so that no two
 * are the same bytes. PORT 0 takes a free one; the port is printed on the first line. --hosts N
 * listens on 127.0.0.1 to 127.0.0.N. Ends when its standard input closes. Not a web server: it trusts the bench that talks to it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, ROOM = 1 << 16, EVENTS = 256 };

/* What is left of a request that has not arrived whole: bytes of its head, or the count of body
 * bytes still to come. Bodies are not kept. */
struct connection {
    uint64_t body_left;
    int head_length;
    char head[8192];
};

static struct connection *connections[MOST];
static char listening[MOST];
static char buffer[ROOM];
static uint64_t posts;
static int vary;
static int status = 200;

static uint64_t content_length(const char *head, const char *end) {
    for (const char *line = head; line < end;) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        if (next == NULL) break;
        if (next - line > 15 && strncasecmp(line, "content-length:", 15) == 0)
            return strtoull(line + 15, NULL, 10);
        line = next + 1;
    }
    return 0;
}

static int answer(char *out, int counting) {
    if (counting) {
        char body[32];
        int length = snprintf(body, sizeof body, "%llu", (unsigned long long)posts);
        return sprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
    }
    posts++;
    if (vary)
        return sprintf(out,
                       "HTTP/1.1 %d OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                       "Content-Type: text/plain\r\nX-Request-Id: %016llx\r\n"
                       "Content-Length: 2\r\n\r\nok",
                       status, (unsigned long long)posts);
    return sprintf(out,
                   "HTTP/1.1 %d OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                   "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok",
                   status);
}

static void drop(int fd) {
    close(fd);
    free(connections[fd]);
    connections[fd] = NULL;
}

/* Takes in `length` bytes that begin at `data`; writes the answers that they call for. */
static int take(int fd, struct connection *c, char *data, size_t length) {
    static char out[ROOM];
    int out_length = 0;
    while (length > 0) {
        if (c->body_left > 0) {
            size_t skipped = c->body_left < length ? c->body_left : length;
            c->body_left -= skipped;
            data += skipped;
            length -= skipped;
            if (c->body_left == 0) out_length += answer(out + out_length, 0);
        } else {
            char *head = data;
            size_t have = length;
            if (c->head_length > 0) { /* the head came in pieces: join them */
                size_t more = sizeof c->head - (size_t)c->head_length;
                if (more > length) more = length;
                memcpy(c->head + c->head_length, data, more);
                head = c->head;
                have = (size_t)c->head_length + more;
            }
            char *end = memmem(head, have, "\r\n\r\n", 4);
            if (end == NULL) {
                if (have >= sizeof c->head) return -1;
                if (c->head_length == 0) memcpy(c->head, data, length);
                c->head_length = (int)have;
                break;
            }
            size_t head_size = (size_t)(end + 4 - head);
            size_t used = head_size - (size_t)c->head_length;
            c->head_length = 0;
            data += used;
            length -= used;
            int counting = memcmp(head, "GET", 3) == 0;
            c->body_left = counting ? 0 : content_length(head, end + 2);
            if (c->body_left == 0) out_length += answer(out + out_length, counting);
        }
        if (out_length > ROOM - 1024) {
            if (write(fd, out, (size_t)out_length) != out_length) return -1;
            out_length = 0;
        }
    }
    if (out_length > 0 && write(fd, out, (size_t)out_length) != out_length) return -1;
    return 0;
}

/* Listens on 127.0.0.NUMBER; the port. */
static int listener(int epoll, int number, int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (uint32_t)number);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0) {
        perror("sink: listen");
        exit(1);
    }
    socklen_t size = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &size);
    listening[fd] = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return ntohs(address.sin_port);
}

static void accept_all(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[fd] = calloc(1, sizeof(struct connection));
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    int hosts = 1, port = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--vary") == 0) vary = 1;
        else if (strcmp(argv[i], "--status") == 0 && i + 1 < argc) status = atoi(argv[++i]);
        else if (strcmp(argv[i], "--hosts") == 0 && i + 1 < argc) hosts = atoi(argv[++i]);
        else port = atoi(argv[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files = {MOST, MOST};
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
        getrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int epoll = epoll_create1(0);
    for (int number = 1; number <= hosts; number++) port = listener(epoll, number, port);
    printf("%d\n", port);
    fflush(stdout);
    /* Standard input: whoever started us has gone when it closes. */
    struct epoll_event event = {.events = EPOLLIN, .data.fd = 0};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    static struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (listening[fd]) {
                accept_all(epoll, fd);
                continue;
            }
            ssize_t got = read(fd, buffer, sizeof buffer);
            if (fd == 0) {
                if (got <= 0) return 0;
                continue;
            }
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0 || take(fd, connections[fd], buffer, (size_t)got) != 0) drop(fd);
        }
    }
}
