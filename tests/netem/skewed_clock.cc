// A library to preload into a daemon whose wall clock shall be wrong: SKEWED_CLOCK names a file
// with an int64 of nanoseconds, which is added to CLOCK_REALTIME. It may change at any moment: the
// clock jumps. Waits until a time of that clock end when it shows that time, as long as it does not
// jump meanwhile.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

constexpr int64_t kNanos = 1'000'000'000;

const int64_t* OpenSkew() {
  static constexpr int64_t kNone = 0;
  const char* const path = std::getenv("SKEWED_CLOCK");
  const int file = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return &kNone;
  void* const mapped = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return mapped == MAP_FAILED ? &kNone : static_cast<const int64_t*>(mapped);
}

// No static here needs a guard: its lock would come back into syscall() below.
int64_t Skew() {
  static std::atomic<const int64_t*> skew = nullptr;
  if (skew == nullptr) skew = OpenSkew();
  return __atomic_load_n(skew.load(), __ATOMIC_RELAXED);
}

timespec Shifted(const timespec& time, int64_t by) {
  const int64_t nanos = time.tv_nsec + by % kNanos;
  timespec shifted = {time.tv_sec + by / kNanos, nanos};
  if (nanos < 0) shifted = {shifted.tv_sec - 1, nanos + kNanos};
  if (nanos >= kNanos) shifted = {shifted.tv_sec + 1, nanos - kNanos};
  return shifted;
}

// The C library's own function of this name.
template <typename Function>
Function* Next(std::atomic<Function*>& next, const char* name) {
  if (next == nullptr) next = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
  return next;
}

using ClockGettime = int(clockid_t, timespec*);
using CondTimedwait = int(pthread_cond_t*, pthread_mutex_t*, const timespec*);
using CondClockwait = int(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*);
using Syscall = long(long, ...);

std::atomic<ClockGettime*> next_clock_gettime = nullptr;
std::atomic<CondTimedwait*> next_cond_timedwait = nullptr;
std::atomic<CondClockwait*> next_cond_clockwait = nullptr;
std::atomic<Syscall*> next_syscall = nullptr;

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = Next(next_clock_gettime, "clock_gettime")(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    *time = Shifted(*time, Skew());
  }
  return result;
}

int gettimeofday(timeval* time, void*) noexcept {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  *time = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t* out) noexcept {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  const timespec shifted = Shifted(*until, -Skew());
  return Next(next_cond_timedwait, "pthread_cond_timedwait")(condition, mutex, &shifted);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  const timespec shifted = Shifted(*until, clock == CLOCK_REALTIME ? -Skew() : 0);
  return Next(next_cond_clockwait, "pthread_cond_clockwait")(condition, mutex, clock, &shifted);
}

long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  // Abseil's mutexes wait so.
  const int operation = static_cast<int>(a[1]);
  if (number == SYS_futex && a[3] != 0 && (operation & FUTEX_CLOCK_REALTIME) != 0) {
    const timespec shifted = Shifted(*reinterpret_cast<const timespec*>(a[3]), -Skew());
    return Next(next_syscall, "syscall")(number, a[0], a[1], a[2], reinterpret_cast<long>(&shifted),
                                         a[4], a[5]);
  }
  return Next(next_syscall, "syscall")(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // extern "C"
