// A closed loop of streamed requests that costs little itself: so many connections, each sending the next request when
// its stream has ended.
// usage: load_streams PORT CONNECTIONS REQUESTS EVENTS BODY_FILE
// prints one line of JSON: requests, errors (status, cut, or another count of events), seconds, and of the times from a
// request's last byte written to its first event read: p50_ms, p99_ms.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 8192, HEAD_ROOM = 4096 };
enum { HEAD, SIZE, DATA, DATA_END };
struct conn { int fd, state, head_used, lines, last; long size; long long sent; char head[HEAD_ROOM]; };
static struct conn conns[MAX];
static double *waits;
static int port, poll, left, open_count, errors, done, wait_count, events_wanted, request_size;
static char *request;

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static long long nanoseconds(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void leave(struct conn *it) { close(it->fd); it->fd = -1; open_count--; }

static void ask(struct conn *it) {
  if (left <= 0) return leave(it);
  left--;
  it->state = HEAD, it->head_used = it->lines = it->last = 0, it->size = 0;
  it->sent = 0;
  if (write(it->fd, request, request_size) != request_size) { errors++; done++; return leave(it); }
  it->sent = nanoseconds();
}

static int begin(int c) {
  struct conn *it = &conns[c];
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int yes = 1;
  it->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(it->fd, (struct sockaddr *)&place, sizeof place)) return perror("connect"), 1;
  setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  open_count++;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = c};
  epoll_ctl(poll, EPOLL_CTL_ADD, it->fd, &event);
  ask(it);
  return 0;
}

static void fail(int c) {
  errors++;
  done++;
  leave(&conns[c]);
  if (left > 0) begin(c);
}

static void ended(int c) {
  done++;
  if (conns[c].lines != 2 * events_wanted) { errors++; fprintf(stderr, "%d lines\n", conns[c].lines); }
  ask(&conns[c]);
}

// takes chunked framing apart; 0 where the connection was given up
static int eat(int c, const char *at, int count) {
  struct conn *it = &conns[c];
  while (count) {
    if (it->state == HEAD) {
      if (it->head_used == HEAD_ROOM - 1) return fail(c), 0;
      it->head[it->head_used++] = *at++, count--;
      if (it->head_used < 4 || memcmp(it->head + it->head_used - 4, "\r\n\r\n", 4)) continue;
      it->head[it->head_used] = 0;
      if (strncmp(it->head, "HTTP/1.1 200", 12) || !strcasestr(it->head, "transfer-encoding: chunked")) {
        if (!errors) fprintf(stderr, "%s\n", it->head);
        return fail(c), 0;
      }
      it->state = SIZE;
    } else if (it->state == SIZE) {
      char byte = *at++;
      count--;
      if (byte == '\n') {
        it->state = it->size ? DATA : DATA_END;
        it->last = !it->size;
        if (it->size && it->sent) { waits[wait_count++] = (nanoseconds() - it->sent) / 1e6; it->sent = 0; }
      } else if (byte != '\r') it->size = it->size * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
    } else if (it->state == DATA) {
      int part = count < it->size ? count : it->size;
      for (int i = 0; i < part; i++) it->lines += at[i] == '\n';
      at += part, count -= part, it->size -= part;
      if (!it->size) it->state = DATA_END;
    } else {
      char byte = *at++;
      count--;
      if (byte != '\n') continue;
      it->state = SIZE;
      if (it->last) return ended(c), 1;
    }
  }
  return 1;
}

static int by_size(const void *a, const void *b) {
  double difference = *(const double *)a - *(const double *)b;
  return difference < 0 ? -1 : difference > 0;
}

static double at(double share) { return wait_count ? waits[(int)(share * (wait_count - 1))] : 0; }

int main(int argc, char **argv) {
  static char body[1 << 16], in[1 << 16];
  if (argc != 6) return 2;
  port = atoi(argv[1]);
  int count = atoi(argv[2]), requests = left = atoi(argv[3]);
  events_wanted = atoi(argv[4]);
  FILE *file = fopen(argv[5], "r");
  if (!file || count > MAX) return 2;
  int size = fread(body, 1, sizeof body, file);
  fclose(file);
  request_size = asprintf(&request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                          "accept: */*\r\nuser-agent: load_streams\r\ncontent-length: %d\r\n\r\n%.*s", port, size, size, body);
  waits = malloc((requests + MAX) * sizeof *waits);
  signal(SIGPIPE, SIG_IGN);
  poll = epoll_create1(0);
  double start = now();
  for (int c = 0; c < count && left > 0; c++) if (begin(c)) return 1;
  while (open_count) {
    struct epoll_event events[256];
    int ready = epoll_wait(poll, events, 256, 60000);
    if (ready == 0) { fprintf(stderr, "nothing came for 60 s\n"); return 1; }
    for (int e = 0; e < ready; e++) {
      int c = events[e].data.fd, got;
      if (conns[c].fd < 0) continue;
      got = read(conns[c].fd, in, sizeof in);
      if (got > 0) eat(c, in, got);
      else if (got == 0 || (errno != EAGAIN && errno != EINTR)) fail(c);
    }
  }
  double seconds = (now() - start) / 1e3;
  qsort(waits, wait_count, sizeof *waits, by_size);
  printf("{\"requests\": %d, \"errors\": %d, \"seconds\": %.6f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n", done, errors, seconds, at(0.5), at(0.99));
  return 0;
}
