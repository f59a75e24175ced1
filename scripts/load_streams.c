// A load of streamed requests that costs little itself.
// usage: load_streams PORT CONNECTIONS REQUESTS EVENTS BODY_FILE [PER_S]
// Without PER_S a closed loop: so many connections, each sending the next request when its stream has ended. With it an
// open one: requests come at random (Poisson, always the same moments), each on an idle connection or else on a new one,
// up to CONNECTIONS, and the first quarter of them, while the streams mount up, is not in the times.
// prints one line of JSON: requests, errors (status, cut, or another count of events), seconds, streams (under way, on
// average), and of the times until a request's first event is read, from its last byte written in a closed loop, from
// the moment when it was due in an open one: p50_ms, p99_ms.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
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
struct conn { int fd, idle, counts, state, head_used, lines, last; long size; long long sent, began; char head[HEAD_ROOM]; };
static struct conn conns[MAX];
static double *waits, per_s, busy_ms;
static int port, poll, left, counted, open_count, errors, done, wait_count, events_wanted, request_size;
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

static void leave(struct conn *it) { close(it->fd); it->fd = -1; it->idle = 0; open_count--; }

static void ask(struct conn *it) {
  if (left <= 0) return leave(it);
  left--;
  it->idle = 0, it->counts = left < counted;
  it->state = HEAD, it->head_used = it->lines = it->last = 0, it->size = 0;
  it->sent = 0;
  if (write(it->fd, request, request_size) != request_size) { errors++; done++; return leave(it); }
  it->sent = it->began = nanoseconds();
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
  if (conns[c].idle) return leave(&conns[c]);
  errors++;
  done++;
  leave(&conns[c]);
  if (left > 0 && !per_s) begin(c);
}

static void ended(int c) {
  done++;
  if (conns[c].lines != 2 * events_wanted) { errors++; fprintf(stderr, "%d lines\n", conns[c].lines); }
  busy_ms += (nanoseconds() - conns[c].began) / 1e6;
  if (per_s && left > 0) conns[c].idle = 1; else ask(&conns[c]);
}

// sends the request that was due then
static int arrive(long long due, int count) {
  int free = -1;
  for (int c = 0; c < count; c++) {
    if (conns[c].fd < 0) { if (free < 0) free = c; } else if (conns[c].idle) { free = c; break; }
  }
  if (free < 0) { fprintf(stderr, "all connections are busy\n"); return 1; }
  if (conns[free].fd >= 0) ask(&conns[free]); else if (begin(free)) return 1;
  conns[free].sent = due;
  return 0;
}

static double between(void) { return -log(1 - drand48()) / per_s * 1e9; }

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
        if (it->size && it->sent) { if (it->counts) waits[wait_count++] = (nanoseconds() - it->sent) / 1e6; it->sent = 0; }
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
  if (argc != 6 && argc != 7) return 2;
  port = atoi(argv[1]);
  int count = atoi(argv[2]), requests = left = atoi(argv[3]);
  events_wanted = atoi(argv[4]);
  per_s = argc == 7 ? atof(argv[6]) : 0;
  counted = per_s ? requests - requests / 4 : requests;
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
  for (int c = 0; c < count; c++) conns[c].fd = -1;
  for (int c = 0; !per_s && c < count && left > 0; c++) if (begin(c)) return 1;
  srand48(7);
  long long due = nanoseconds() + between();
  while (per_s ? done < requests : open_count) {
    struct epoll_event events[256];
    struct timespec wait = {.tv_sec = 60};
    if (per_s) {
      for (; left > 0 && due <= nanoseconds(); due += between()) if (arrive(due, count)) return 1;
      long long rest = due - nanoseconds();
      if (left > 0) wait.tv_sec = 0, wait.tv_nsec = rest > 0 ? rest : 0;
    }
    int ready = epoll_pwait2(poll, events, 256, &wait, 0);
    if (ready == 0 && left > 0 && per_s) continue;
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
  printf("{\"requests\": %d, \"errors\": %d, \"seconds\": %.6f, \"streams\": %.1f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n", done, errors, seconds, busy_ms / 1e3 / seconds, at(0.5), at(0.99));
  return 0;
}
