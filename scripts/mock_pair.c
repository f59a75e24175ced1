// A mock of vLLM's two legs, for measuring what stands before it. One process plays prefill and decode worker alike.
// usage: mock_pair PORT     prints "ready" when it listens; ends on SIGTERM or SIGINT
// A POST that asks to keep its KV blocks gets kv_transfer_params at once. Any other is streamed: max_tokens events of
// chat, each written by itself, the first at once and the others every "mock_gap_ms" (0: in one burst), then [DONE].
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 8192, ROOM = 1 << 16 };
struct conn { int fd, used, next, count, waits; long long start, gap; char *in; };
static struct conn conns[MAX];
static int heap[MAX], heap_size;
static volatile sig_atomic_t over;
static const char EVENT[] =
  "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"mock\","
  "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char KEPT[] =
  "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1764000000,\"model\":\"mock\",\"choices\":[{\"index\":0,"
  "\"message\":{\"role\":\"assistant\",\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":40,"
  "\"completion_tokens\":1,\"total_tokens\":41},\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"
  "\"remote_block_ids\":[[1,2,3]],\"remote_engine_id\":\"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\",\"remote_request_id\":\"chatcmpl-0123456789abcdef\","
  "\"remote_host\":\"127.0.0.1\",\"remote_port\":5600,\"tp_size\":1,\"dcp_size\":1,\"pp_size\":1,\"remote_num_tokens\":40,"
  "\"remote_blocks_expiry_time\":1764000030.5}}";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1764000000,\"owned_by\":\"vllm\",\"max_model_len\":4096}]}";

static void end(int number) { (void)number; over = 1; }

static long long now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static long long due(int c) { return conns[c].start + conns[c].next * conns[c].gap; }

static void swap(int a, int b) { int kept = heap[a]; heap[a] = heap[b]; heap[b] = kept; }

static void push(int c) {
  int at = heap_size++;
  conns[c].waits = 1;
  for (heap[at] = c; at && due(heap[at]) < due(heap[(at - 1) / 2]); at = (at - 1) / 2) swap(at, (at - 1) / 2);
}

static void sink(void) {
  for (int at = 0, child; (child = 2 * at + 1) < heap_size; at = child) {
    if (child + 1 < heap_size && due(heap[child + 1]) < due(heap[child])) child++;
    if (due(heap[at]) <= due(heap[child])) break;
    swap(at, child);
  }
}

static void pop(void) {
  conns[heap[0]].waits = 0;
  heap[0] = heap[--heap_size];
  sink();
}

static void send_all(int c, const char *data, int size) {
  if (conns[c].fd >= 0 && write(conns[c].fd, data, size) != size && errno != EPIPE && errno != ECONNRESET) perror("write");
}

static void whole(int c, const char *body) {
  char out[4096];
  send_all(c, out, sprintf(out, "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body));
}

// what is due on a stream: 0 when that was all of it
static int step(int c) {
  static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
  char out[1024];
  if (!conns[c].next) send_all(c, head, sizeof head - 1);
  conns[c].next++;
  send_all(c, out, sprintf(out, "%zx\r\n%s\r\n", sizeof EVENT - 1, EVENT));
  if (conns[c].next < conns[c].count) return 1;
  send_all(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
  return 0;
}

static int number(const char *in, const char *name, int otherwise) {
  const char *at = strstr(in, name);
  return at ? atoi(at + strlen(name)) : otherwise;
}

static void take(int c) {
  struct conn *it = &conns[c];
  int got = read(it->fd, it->in + it->used, ROOM - 1 - it->used);
  if (got <= 0) {
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    close(it->fd);
    it->fd = -1;
    it->used = 0;
    return;
  }
  it->in[it->used += got] = 0;
  char *body = strstr(it->in, "\r\n\r\n"), *length = strcasestr(it->in, "\r\ncontent-length:");
  if (!body || it->used < body + 4 - it->in + (length ? atoi(length + 17) : 0)) return;
  it->used = 0;
  if (*it->in == 'G') return whole(c, strncmp(it->in, "GET /v1/models", 14) ? "{}" : MODELS);
  if (strstr(body, "\"do_remote_decode\":true")) return whole(c, KEPT);
  if (strstr(body, "\"stream\":false")) return whole(c, KEPT);
  it->start = now();
  it->next = 0;
  it->count = number(body, "\"max_tokens\":", 16);
  it->gap = number(body, "\"mock_gap_ms\":", 0) * 1000000LL;
  int more;
  do more = step(c); while (more && !it->gap);
  if (more) push(c);
}

static void take_new(int poll, int listener) {
  static int last;
  int fd, yes = 1;
  while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
    int c = last, tried = 0;
    while (tried < MAX && (conns[c].fd >= 0 || conns[c].waits)) c = (c + 1) % MAX, tried++;
    if (tried == MAX) { close(fd); continue; }
    last = c;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (!conns[c].in) conns[c].in = malloc(ROOM);
    conns[c].fd = fd, conns[c].used = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct sigaction act = {.sa_handler = end};
  sigaction(SIGTERM, &act, 0);
  sigaction(SIGINT, &act, 0);
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), yes = 1;
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&place, sizeof place) || listen(listener, 4096)) return perror("bind"), 1;
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = -1};
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = -2;
  epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
  for (int c = 0; c < MAX; c++) conns[c].fd = -1;
  puts("ready");
  fflush(stdout);
  while (!over) {
    while (heap_size && due(heap[0]) <= now()) {
      int c = heap[0];
      if (conns[c].fd >= 0 && step(c)) sink(); else pop();
    }
    struct itimerspec when = {0};
    if (heap_size) {
      long long at = due(heap[0]);
      when.it_value.tv_sec = at / 1000000000LL, when.it_value.tv_nsec = at % 1000000000LL;
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0);
    struct epoll_event events[256];
    int count = epoll_wait(poll, events, 256, 1000);
    for (int e = 0; e < count; e++) {
      if (events[e].data.fd == -2) {
        long long ticks;
        if (read(timer, &ticks, sizeof ticks) < 0) continue;
      } else if (events[e].data.fd == -1) take_new(poll, listener);
      else take(events[e].data.fd);
    }
  }
  return 0;
}
