/* The receiving end of the bench: answers POSTs much faster than the daemon can send them, and
 * knows exactly which events arrived.
 *
 * One thread, one epoll. It listens on 127.0.0.1 and 127.0.1.1 ... 127.0.1.H (so many "hosts"),
 * all on one port; an endpoint is the number in the path /e/<number>. Every event carries
 * "n":"<sequence number>" and "at":"<nanoseconds of CLOCK_REALTIME at which it was published>".
 *
 *   sink PORT HOSTS [CERTIFICATE KEY]     PORT 0: any free one; prints {"port": N}
 *
 * Control is by lines on stdin, each answered by one line of JSON on stdout; at the end of stdin
 * it exits, so that it never outlives the bench.
 *
 *   reset EVENTS FANOUT ENDPOINTS   expect sequence numbers 0..EVENTS-1, each FANOUT times: with
 *                                   FANOUT 1 at endpoint number mod ENDPOINTS, else at endpoints
 *                                   0..FANOUT-1. EVENTS 0: count requests only.
 *   forget                          latencies, and arrivals by class; the rest is kept
 *   count                           the totals
 *   missing N                       the first N (number, endpoint) that have not arrived
 *   mode FIRST LAST ok|hang|drip|NNN   what endpoints FIRST..LAST answer; NNN is a status
 *   class FIRST LAST C              count their latencies under class C (0..3)
 *   measure on|off                  whether latencies are counted
 *   histogram C                     [[microseconds, count], ...] (lower bounds, 1 % wide)
 *   samples                         some requests as they came, in hex
 *   dark | refuse | open            the whole host: answers no packet's content, refuses
 *                                   connections, works. What lay in its sockets while it was dark
 *                                   is lost when it opens, as after a power cut.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define CLASSES 4
#define SUB_BITS 7
#define BUCKETS (64 << SUB_BITS)
#define FIRST_BUFFER 4096
#define MOST_BUFFER (16 << 20)
#define SAMPLES 8
#define SAMPLE_BYTES 16384
#define MOST_HOSTS 1000

enum mode { OK, HANG, DRIP, STATUS };
enum host { OPEN, DARK, REFUSE };

struct conn {
    int fd;
    int listener;
    int held; /* a request of it will never be answered */
    int drips;
    char *buf;
    size_t len, cap;
    struct conn *prev, *next;
#ifdef WITH_TLS
    SSL *ssl;
#endif
};

struct endpoint {
    unsigned char mode, class;
    short status;
};

static struct {
    uint64_t requests, answered, events, unique, duplicates, misrouted, unknown, unsigned_, bad;
    uint64_t accepts, first_ns, last_ns, class_unique[CLASSES];
    uint64_t refused_status, held;
    int open, peak_open;
} total;

static int epoll, port, hosts;
static int listeners[MOST_HOSTS + 1];
static enum host state = OPEN;
static struct conn *all;
static struct endpoint *endpoints;
static size_t endpoint_count;
static uint8_t *seen;
static uint64_t expect_events, expect_fanout = 1, expect_endpoints = 1;
static int measuring = 1;
static uint64_t histogram[CLASSES][BUCKETS];
static struct { size_t len; char bytes[SAMPLE_BYTES]; } samples[SAMPLES];
static int sample_count;
#ifdef WITH_TLS
static SSL_CTX *tls;
#endif

static const char ANSWER_OK[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
static const char DRIP_HEAD[] = "HTTP/1.1 200 OK\r\nX-Drip: ";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- connections ------------------------------------------------------------------------- */

static void listen_on(int index) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    /* 127.0.0.1, then 127.0.1.1, 127.0.1.2 ... 127.0.4.x */
    uint32_t host = 0x7f000001u;
    if (index) host = 0x7f000100u + (uint32_t)((index - 1) / 250) * 256 + (uint32_t)((index - 1) % 250) + 1;
    a.sin_addr.s_addr = htonl(host);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) die("bind");
    if (!port) {
        socklen_t n = sizeof a;
        getsockname(fd, (struct sockaddr *)&a, &n);
        port = ntohs(a.sin_port);
    }
    struct conn *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->listener = 1 + index;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    c->next = all;
    if (all) all->prev = c;
    all = c;
    listeners[index] = fd;
}

static void drop(struct conn *c, int reset) {
    if (reset) {
        struct linger l = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
#ifdef WITH_TLS
    if (c->ssl) SSL_free(c->ssl);
#endif
    close(c->fd);
    if (c->prev) c->prev->next = c->next;
    else all = c->next;
    if (c->next) c->next->prev = c->prev;
    if (!c->listener) total.open--;
    c->fd = -1;
    free(c->buf);
    free(c);
}

static void accept_all(struct conn *listener, int discard) {
    for (int i = 0; discard || i < 256; i++) {
        int one = 1, fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (discard) {
            struct linger l = {1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->buf = malloc(c->cap = FIRST_BUFFER);
#ifdef WITH_TLS
        if (tls) {
            c->ssl = SSL_new(tls);
            SSL_set_fd(c->ssl, fd);
            SSL_set_accept_state(c->ssl);
        }
#endif
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
        c->next = all;
        if (all) all->prev = c;
        all = c;
        total.accepts++;
        if (++total.open > total.peak_open) total.peak_open = total.open;
    }
}

/* > 0 bytes, 0 nothing now, < 0 it is over */
static ssize_t receive(struct conn *c, char *to, size_t room) {
#ifdef WITH_TLS
    if (c->ssl) {
        /* An error of another connection, left in the queue, would be taken for this one's. */
        ERR_clear_error();
        int n = SSL_read(c->ssl, to, (int)room);
        if (n > 0) return n;
        int why = SSL_get_error(c->ssl, n);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t n = recv(c->fd, to, room, 0);
    if (n > 0) return n;
    return n < 0 && errno == EAGAIN ? 0 : -1;
}

static int answer(struct conn *c, const char *bytes, size_t n) {
#ifdef WITH_TLS
    if (c->ssl) {
        ERR_clear_error();
        return SSL_write(c->ssl, bytes, (int)n) == (int)n ? 0 : -1;
    }
#endif
    return send(c->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -1;
}

/* --- what arrived ------------------------------------------------------------------------ */

static size_t bucket(uint64_t us) {
    if (us < (1u << SUB_BITS)) return us;
    int shift = 63 - __builtin_clzll(us) - SUB_BITS;
    return ((size_t)(shift + 1) << SUB_BITS) + (size_t)((us >> shift) & ((1u << SUB_BITS) - 1));
}

static uint64_t lower_bound(size_t b) {
    if (b < (1u << SUB_BITS)) return b;
    size_t shift = (b >> SUB_BITS) - 1;
    return ((uint64_t)((1u << SUB_BITS) + (b & ((1u << SUB_BITS) - 1)))) << shift;
}

static uint64_t digits(const char *p, const char *end) {
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9') v = v * 10 + (uint64_t)(*p++ - '0');
    return v;
}

static void arrived(uint64_t number, uint64_t at, uint64_t endpoint, uint64_t now) {
    total.events++;
    if (number >= expect_events || endpoint >= endpoint_count) {
        total.unknown++;
        return;
    }
    uint64_t slot = number;
    if (expect_fanout > 1) {
        if (endpoint >= expect_fanout) {
            total.misrouted++;
            return;
        }
        slot = number * expect_fanout + endpoint;
    } else if (endpoint != number % expect_endpoints) {
        total.misrouted++;
        return;
    }
    if (seen[slot]) {
        total.duplicates++;
        if (seen[slot] < 255) seen[slot]++;
        return;
    }
    seen[slot] = 1;
    total.unique++;
    if (!total.first_ns) total.first_ns = now;
    total.last_ns = now;
    int class = endpoints[endpoint].class;
    total.class_unique[class]++;
    if (measuring) histogram[class][bucket(now > at ? (now - at) / 1000 : 0)]++;
}

static void look_into(const char *body, size_t n, uint64_t endpoint) {
    const char *end = body + n, *p = body;
    int batch = n && *body == '[';
    uint64_t now = now_ns();
    int found = 0;
    while ((p = memmem(p, (size_t)(end - p), "\"n\":\"", 5))) {
        uint64_t number = digits(p + 5, end);
        const char *q = memmem(p, (size_t)(end - p) < 64 ? (size_t)(end - p) : 64, "\"at\":\"", 6);
        arrived(number, q ? digits(q + 6, end) : now, endpoint, now);
        found = 1;
        if (!batch) break;
        p += 5;
    }
    if (!found) total.unknown++;
}

static void keep_sample(const char *bytes, size_t n) {
    /* The first, and then rarely: so that the signatures of a run can be checked. */
    if (n > SAMPLE_BYTES || sample_count >= SAMPLES) return;
    if (sample_count && (total.requests & ((1u << (6 + sample_count)) - 1))) return;
    memcpy(samples[sample_count].bytes, bytes, n);
    samples[sample_count++].len = n;
}

static uint64_t path_number(const char *head, const char *end) {
    const char *p = memchr(head, ' ', (size_t)(end - head));
    if (!p || end - p < 4 || memcmp(p, " /e/", 4)) return 0;
    return digits(p + 4, end);
}

static const char *header(const char *head, const char *end, const char *name, size_t n) {
    for (const char *p = head; (p = memchr(p, '\n', (size_t)(end - p)));) {
        p++;
        if ((size_t)(end - p) > n && p[n] == ':' && !strncasecmp(p, name, n)) {
            p += n + 1;
            while (p < end && *p == ' ') p++;
            return p;
        }
    }
    return NULL;
}

/* One whole request is in the buffer. -1: the connection is gone. */
static int request(struct conn *c, const char *head, const char *body, size_t length) {
    uint64_t number = path_number(head, body);
    struct endpoint *e = number < endpoint_count ? &endpoints[number] : NULL;
    total.requests++;
    keep_sample(head, (size_t)(body - head) + length);
    if (!header(head, body, "webhook-signature", 17)) total.unsigned_++;
    enum mode mode = e ? e->mode : OK;
    if (mode == OK) {
        if (expect_events) look_into(body, length, number);
        total.answered++;
        return answer(c, ANSWER_OK, sizeof ANSWER_OK - 1);
    }
    if (mode == STATUS) {
        char text[128];
        int n = snprintf(text, sizeof text, "HTTP/1.1 %d Status\r\nContent-Length: 2\r\n\r\nno", e->status);
        total.refused_status++;
        return answer(c, text, (size_t)n);
    }
    total.held++;
    c->held = 1;
    if (mode == DRIP) {
        c->drips = 1;
        return answer(c, DRIP_HEAD, sizeof DRIP_HEAD - 1);
    }
    return 0;
}

/* 0: went well; -1: end the connection */
static int consume(struct conn *c) {
    size_t at = 0;
    int result = 0;
    while (!c->held && at < c->len) {
        const char *head = c->buf + at;
        const char *end = memmem(head, c->len - at, "\r\n\r\n", 4);
        if (!end) break;
        const char *body = end + 4;
        const char *length_at = header(head, body, "content-length", 14);
        if (!length_at) {
            total.bad++;
            return -1;
        }
        size_t length = digits(length_at, body);
        if (length > MOST_BUFFER / 2) return -1;
        size_t whole = (size_t)(body - head) + length;
        if (c->len - at < whole) {
            if (c->cap < whole + FIRST_BUFFER) {
                memmove(c->buf, c->buf + at, c->len - at);
                c->len -= at;
                at = 0;
                c->buf = realloc(c->buf, c->cap = whole + FIRST_BUFFER);
            }
            break;
        }
        at += whole;
        if ((result = request(c, head, body, length)) < 0) break;
    }
    memmove(c->buf, c->buf + at, c->len - at);
    c->len -= at;
    return result;
}

static void readable(struct conn *c) {
    for (;;) {
        if (c->len == c->cap) {
            if (c->cap >= MOST_BUFFER) {
                total.bad++;
                drop(c, 1);
                return;
            }
            c->buf = realloc(c->buf, c->cap *= 2);
        }
        size_t room = c->cap - c->len;
        ssize_t n = receive(c, c->buf + c->len, room);
        if (n < 0) {
            drop(c, 0);
            return;
        }
        if (n == 0) return;
        c->len += (size_t)n;
        if (c->held) c->len = 0; /* whatever it still says: nobody listens */
        else if (consume(c) < 0) {
            drop(c, 0);
            return;
        }
#ifdef WITH_TLS
        if (c->ssl) continue;
#endif
        if ((size_t)n < room) return; /* there was no more: saves a call */
    }
}

static void drip_all(void) {
    for (struct conn *c = all, *next; c; c = next) {
        next = c->next;
        if (c->drips && answer(c, "a", 1) < 0) drop(c, 1);
    }
}

/* --- the host as a whole ----------------------------------------------------------------- */

static void arm(uint32_t events) {
    for (struct conn *c = all; c; c = c->next) {
        struct epoll_event e = {.events = events, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
    }
}

static void drop_all(int listeners_too) {
    for (struct conn *c = all, *next; c; c = next) {
        next = c->next;
        if (!c->listener || listeners_too) drop(c, 1);
    }
}

static void become(enum host wanted) {
    if (wanted == state) return;
    if (wanted == DARK) {
        /* Without events not even a hang-up is handled; those come when it opens. */
        arm(0);
        for (struct conn *c = all; c; c = c->next) epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    } else if (wanted == REFUSE) {
        drop_all(1);
    } else if (state == REFUSE) {
        for (int i = 0; i <= hosts; i++) listen_on(i);
    } else {
        drop_all(0);
        for (struct conn *c = all; c; c = c->next) {
            struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
            accept_all(c, 1);
            epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
        }
    }
    state = wanted;
}

/* --- control ----------------------------------------------------------------------------- */

static void reset(uint64_t events, uint64_t fanout, uint64_t count) {
    free(seen);
    free(endpoints);
    memset(&total.requests, 0, sizeof total - sizeof total.open - sizeof total.peak_open);
    total.peak_open = total.open;
    memset(histogram, 0, sizeof histogram);
    sample_count = 0;
    measuring = 1;
    expect_events = events;
    expect_fanout = fanout ? fanout : 1;
    expect_endpoints = count ? count : 1;
    seen = calloc(events * expect_fanout + 1, 1);
    endpoint_count = expect_endpoints > expect_fanout ? expect_endpoints : expect_fanout;
    endpoints = calloc(endpoint_count, sizeof *endpoints);
    if (!seen || !endpoints) die("calloc");
}

static void say_count(void) {
    printf("{\"requests\": %lu, \"answered\": %lu, \"events\": %lu, \"unique\": %lu, "
           "\"duplicates\": %lu, \"misrouted\": %lu, \"unknown\": %lu, \"unsigned\": %lu, "
           "\"bad\": %lu, \"accepts\": %lu, \"open\": %d, \"peak_open\": %d, \"first_ns\": %lu, "
           "\"last_ns\": %lu, \"refused\": %lu, \"held\": %lu, \"classes\": [%lu, %lu, %lu, %lu]}\n",
           total.requests, total.answered, total.events, total.unique, total.duplicates,
           total.misrouted, total.unknown, total.unsigned_, total.bad, total.accepts, total.open,
           total.peak_open, total.first_ns, total.last_ns, total.refused_status, total.held,
           total.class_unique[0], total.class_unique[1], total.class_unique[2],
           total.class_unique[3]);
}

static void say_histogram(unsigned c) {
    const char *comma = "";
    printf("[");
    for (size_t b = 0; c < CLASSES && b < BUCKETS; b++)
        if (histogram[c][b]) {
            printf("%s[%lu, %lu]", comma, lower_bound(b), histogram[c][b]);
            comma = ", ";
        }
    printf("]\n");
}

static void say_missing(uint64_t most) {
    const char *comma = "";
    printf("[");
    for (uint64_t i = 0; i < expect_events * expect_fanout && most; i++)
        if (!seen[i]) {
            printf("%s[%lu, %lu]", comma, i / expect_fanout,
                   expect_fanout > 1 ? i % expect_fanout : i % expect_endpoints);
            comma = ", ";
            most--;
        }
    printf("]\n");
}

static void say_samples(void) {
    printf("[");
    for (int i = 0; i < sample_count; i++) {
        printf("%s\"", i ? ", " : "");
        for (size_t j = 0; j < samples[i].len; j++) printf("%02x", (unsigned char)samples[i].bytes[j]);
        printf("\"");
    }
    printf("]\n");
}

static void set_mode(size_t first, size_t last, const char *word) {
    for (size_t i = first; i <= last && i < endpoint_count; i++) {
        endpoints[i].status = (short)atoi(word);
        endpoints[i].mode = !strcmp(word, "ok") ? OK : !strcmp(word, "hang") ? HANG
                            : !strcmp(word, "drip") ? DRIP : STATUS;
    }
}

static void obey(char *line) {
    unsigned long a = 0, b = 0, c = 0;
    char word[32] = "";
    if (sscanf(line, "reset %lu %lu %lu", &a, &b, &c) == 3) reset(a, b, c);
    else if (!strcmp(line, "forget")) {
        memset(histogram, 0, sizeof histogram);
        memset(total.class_unique, 0, sizeof total.class_unique);
        total.peak_open = total.open;
    } else if (!strcmp(line, "count")) return say_count();
    else if (sscanf(line, "missing %lu", &a) == 1) return say_missing(a);
    else if (sscanf(line, "histogram %lu", &a) == 1) return say_histogram((unsigned)a);
    else if (!strcmp(line, "samples")) return say_samples();
    else if (sscanf(line, "mode %lu %lu %31s", &a, &b, word) == 3) set_mode(a, b, word);
    else if (sscanf(line, "class %lu %lu %lu", &a, &b, &c) == 3 && c < CLASSES) {
        for (size_t i = a; i <= b && i < endpoint_count; i++) endpoints[i].class = (unsigned char)c;
    } else if (sscanf(line, "measure %31s", word) == 1) measuring = !strcmp(word, "on");
    else if (!strcmp(line, "dark")) become(DARK);
    else if (!strcmp(line, "refuse")) become(REFUSE);
    else if (!strcmp(line, "open")) become(OPEN);
    else {
        printf("{\"error\": \"not understood\"}\n");
        return;
    }
    printf("{}\n");
}

static void control(void) {
    static char text[4096];
    static size_t len;
    ssize_t n = read(0, text + len, sizeof text - 1 - len);
    if (n <= 0) exit(0);
    len += (size_t)n;
    char *line = text, *end;
    while ((end = memchr(line, '\n', len - (size_t)(line - text)))) {
        *end = 0;
        obey(line);
        line = end + 1;
    }
    len -= (size_t)(line - text);
    memmove(text, line, len);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "sink PORT HOSTS [CERTIFICATE KEY]\n");
        return 2;
    }
    port = atoi(argv[1]);
    hosts = atoi(argv[2]) > MOST_HOSTS ? MOST_HOSTS : atoi(argv[2]);
#ifdef WITH_TLS
    if (argc == 5) {
        tls = SSL_CTX_new(TLS_server_method());
        if (SSL_CTX_use_certificate_chain_file(tls, argv[3]) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, argv[4], SSL_FILETYPE_PEM) != 1) {
            fprintf(stderr, "certificate or key refused\n");
            return 2;
        }
    }
#else
    if (argc == 5) {
        fprintf(stderr, "built without TLS\n");
        return 2;
    }
#endif
    epoll = epoll_create1(0);
    for (int i = 0; i <= hosts; i++) listen_on(i);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &e)) die("stdin");
    reset(0, 1, 1);
    printf("{\"port\": %d}\n", port);
    fflush(stdout);
    uint64_t dripped = now_ns();
    for (;;) {
        int n = epoll_wait(epoll, ready, 256, 250), asked = 0;
        for (int i = 0; i < n; i++) {
            struct conn *c = ready[i].data.ptr;
            if (!c) asked = 1;
            else if (c->listener) accept_all(c, 0);
            else readable(c);
        }
        if (asked) control(); /* last: it may drop connections that are in `ready` */
        if (now_ns() - dripped > 1000000000u) {
            dripped = now_ns();
            drip_all();
        }
    }
}
