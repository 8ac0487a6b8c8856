/* The time of day of a process that preloads this: the system's, and as many seconds more as the shared file says.

   Waiting until a time of day is done in short steps, so that a clock set back makes it longer, as with the kernel.
   The monotonic clock is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

enum { STEP_NS = 50000000, SECOND_NS = 1000000000, UPTIME_S = 500000000 /* longer than any machine runs */ };

static volatile const long long *ahead_s;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_cnd_timedwait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void prepare(void) {
  static const long long none;
  const char *name = getenv("CLOCK_FILE");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  void *shared = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
  ahead_s = shared == MAP_FAILED ? &none : shared;
  if (file >= 0) close(file);
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  /* The oldest of its versions has another layout, and is what dlsym finds. */
  real_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  real_cnd_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
}

int clock_gettime(clockid_t id, struct timespec *now) {
  if (!real_clock_gettime) prepare(); /* called by another library's constructor */
  int failed = real_clock_gettime(id, now);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  *now = (struct timeval){precise.tv_sec, precise.tv_nsec / 1000};
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds) *seconds = now.tv_sec;
  return now.tv_sec;
}

/* Give the end of the next step, by the system's clock; return 0 when `until`, by the process's clock, has passed. */
static int next_step(const struct timespec *until, struct timespec *end) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  long long left_s = (long long)until->tv_sec - now.tv_sec, left_ns = until->tv_nsec - now.tv_nsec;
  if (left_s < 0 || (left_s == 0 && left_ns <= 0)) return 0;
  long long step_ns = left_s > 1 ? STEP_NS : left_s * SECOND_NS + left_ns;
  if (step_ns > STEP_NS) step_ns = STEP_NS;
  real_clock_gettime(CLOCK_REALTIME, end);
  long long end_ns = end->tv_nsec + step_ns;
  end->tv_sec += end_ns / SECOND_NS;
  end->tv_nsec = end_ns % SECOND_NS;
  return 1;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
  struct timespec end;
  if (t->tv_sec < UPTIME_S) return real_cond_timedwait(c, m, t); /* a condition that goes by the monotonic clock */
  while (next_step(t, &end)) {
    int result = real_cond_timedwait(c, m, &end);
    if (result != ETIMEDOUT) return result;
  }
  return ETIMEDOUT;
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict t) {
  struct timespec end;
  while (next_step(t, &end)) {
    int result = real_cnd_timedwait(c, m, &end);
    if (result != thrd_timedout) return result;
  }
  return thrd_timedout;
}
