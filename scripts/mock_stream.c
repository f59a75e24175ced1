// A mock of a streaming LLM server whose send times are known: each answer follows an absolute schedule from the moment
// its request came in (the kernel's stamp: that this server was busy hides nothing), and the log says when each first and
// last token was really written (CLOCK_MONOTONIC, ns). A chat answer begins with its role at once, a completion has none.
// usage: mock_stream PORT LOG FIRST_MS GAP_MS TOKENS     ends on SIGTERM or SIGINT; prints "ready" when it listens
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 4096, ROOM = 1 << 16, LOGGED = 1 << 21 };
struct conn { int fd, used, next, active, chat; long long start; char *in; };
struct row { char id[96]; long long received, first, last; };
static struct conn conns[MAX];
static struct row *rows;
static int row_of[MAX], row_count, heap[MAX], heap_size, tokens;
static long long first_ns, gap_ns;
static volatile sig_atomic_t over;

static void end(int number) { (void)number; over = 1; }

static long long now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

// reads, and says when the last of what was read came in: by the kernel's stamp, whose clock may be set, so by its age
static int gather(int fd, char *to, int room, long long *came) {
  char extra[256];
  struct iovec piece = {.iov_base = to, .iov_len = room};
  struct msghdr all = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = extra, .msg_controllen = sizeof extra};
  int got = recvmsg(fd, &all, 0);
  *came = now();
  for (struct cmsghdr *part = got > 0 ? CMSG_FIRSTHDR(&all) : 0; part; part = CMSG_NXTHDR(&all, part))
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
      struct timespec stamp, at;
      memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
      clock_gettime(CLOCK_REALTIME, &at);
      long long age = (at.tv_sec - stamp.tv_sec) * 1000000000LL + at.tv_nsec - stamp.tv_nsec;
      if (age > 0 && age < 10000000000LL) *came -= age;
    }
  return got;
}

// what comes next on a connection: the role at once, then token after token
static long long due(int c) {
  return conns[c].next == 0 ? conns[c].start : conns[c].start + first_ns + (conns[c].next - 1) * gap_ns;
}

static void swap(int a, int b) { int kept = heap[a]; heap[a] = heap[b]; heap[b] = kept; }

static void push(int c) {
  int at = heap_size++;
  for (heap[at] = c; at && due(heap[at]) < due(heap[(at - 1) / 2]); at = (at - 1) / 2) swap(at, (at - 1) / 2);
}

static void sink(void) {
  for (int at = 0, child; (child = 2 * at + 1) < heap_size; at = child) {
    if (child + 1 < heap_size && due(heap[child + 1]) < due(heap[child])) child++;
    if (due(heap[at]) <= due(heap[child])) break;
    swap(at, child);
  }
}

static void drop(int c) { close(conns[c].fd); conns[c].fd = -1; conns[c].used = 0; }

static void say(int c, const char *text, int head) {
  char out[1024];
  int size = 0, length = strlen(text);
  if (head) size = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
  size += sprintf(out + size, "%x\r\n%s\r\n", length, text);
  if (write(conns[c].fd, out, size) != size && errno != EPIPE && errno != ECONNRESET) perror("write");
}

static void step(int c) {
  char text[512];
  struct row *row = &rows[row_of[c]];
  int k = conns[c].next;
  if (k == 0) {
    say(c, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", 1);
  } else {
    sprintf(text, "data: {\"id\":\"cmpl-0123456789abcdef\",\"object\":\"%s\",\"created\":1764000000,\"model\":\"mock\","
                  "\"choices\":[{\"index\":0,%s\" word%d\"%s,\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            conns[c].chat ? "chat.completion.chunk" : "text_completion", conns[c].chat ? "\"delta\":{\"content\":" : "\"text\":", k, conns[c].chat ? "}" : "");
    say(c, text, k == 1 && !conns[c].chat);
    if (k == 1) row->first = now();
    if (k == tokens) row->last = now();
  }
  if (k == tokens) {
    sprintf(text, "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\ndata: [DONE]\n\n", tokens, tokens + 8);
    say(c, text, 0);
    if (write(conns[c].fd, "0\r\n\r\n", 5) != 5) perror("write");
    conns[c].active = 0;
  }
  conns[c].next++;
}

static void take(int c) {
  struct conn *it = &conns[c];
  long long came;
  int got = gather(it->fd, it->in + it->used, ROOM - 1 - it->used, &came);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) { if (!it->active) drop(c); else it->used = -1; }
    return;
  }
  it->in[it->used += got] = 0;
  char *body = strstr(it->in, "\r\n\r\n"), *length = strcasestr(it->in, "\r\ncontent-length:"), *id = strcasestr(it->in, "\r\nx-request-id:");
  if (!body || it->used < body + 4 - it->in + (length ? atoi(length + 17) : 0)) return;
  it->start = came;
  it->chat = strstr(it->in, "/chat/") != 0 && strstr(it->in, "/chat/") < strchr(it->in, '\r');
  it->next = !it->chat;
  it->active = 1;
  it->used = 0;
  row_of[c] = row_count < LOGGED - 1 ? row_count++ : row_count;
  rows[row_of[c]].received = it->start;
  if (id) sscanf(id + 15, " %95[^\r]", rows[row_of[c]].id);
  push(c);
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  first_ns = atof(argv[3]) * 1e6, gap_ns = atof(argv[4]) * 1e6, tokens = atoi(argv[5]);
  rows = calloc(LOGGED, sizeof *rows);
  struct sigaction act = {.sa_handler = end};
  sigaction(SIGTERM, &act, 0);
  sigaction(SIGINT, &act, 0);
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), yes = 1;
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&place, sizeof place) || listen(listener, 1024)) return perror("bind"), 1;
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
      if (conns[c].used >= 0) step(c); else { conns[c].active = 0; drop(c); }
      if (conns[c].active) { sink(); continue; }
      heap[0] = heap[--heap_size];
      sink();
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
      } else if (events[e].data.fd == -1) {
        int fd;
        while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
          int c = 0;
          while (c < MAX && conns[c].fd >= 0) c++;
          if (c == MAX) { close(fd); continue; }
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
          setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
          if (!conns[c].in) conns[c].in = malloc(ROOM);
          conns[c].fd = fd, conns[c].used = conns[c].active = 0;
          struct epoll_event more = {.events = EPOLLIN, .data.fd = c};
          epoll_ctl(poll, EPOLL_CTL_ADD, fd, &more);
        }
      } else {
        take(events[e].data.fd);
      }
    }
  }
  FILE *log = fopen(argv[2], "w");
  for (int r = 0; log && r < row_count; r++)
    if (rows[r].last) fprintf(log, "%s %lld %lld %lld\n", rows[r].id, rows[r].received, rows[r].first, rows[r].last);
  return log ? fclose(log) : 1;
}
