// Only in builds for ThreadSanitizer. The distribution's Abseil is not built for it, so that TSan
// sees none of the order that absl::Mutex makes, and calls everything that a mutex guards a race.
// These definitions come before those of the shared library, tell TSan what a lock means, and then
// call them.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "common/check.h"

namespace {

// The shared library's definition of a member function, as a free one.
template <class Function>
Function* Real(const char* mangled) {
  void* symbol = dlsym(RTLD_NEXT, mangled);
  CHECK(symbol != nullptr);
  return reinterpret_cast<Function*>(symbol);
}

// The mutex in whose name this thread may evaluate conditions, its own or another waiter's.
thread_local void* current_mutex = nullptr;

// Around a call that locks, unlocks, or unlocks and locks again.
class Scope {
 public:
  Scope(void* mutex, bool releases, bool acquires)
      : mutex_(mutex), acquires_(acquires), before_(current_mutex) {
    if (releases) __tsan_release(mutex);
    current_mutex = mutex;
  }
  ~Scope() {
    current_mutex = before_;
    if (acquires_) __tsan_acquire(mutex_);
  }

 private:
  void* const mutex_;
  const bool acquires_;
  void* const before_;
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

#define EFEDLLM_MANGLED(rest) "_ZN4absl7debian3" rest
#define EFEDLLM_MANGLED_CONST(rest) "_ZNK4absl7debian3" rest

bool Condition::Eval() const {
  static auto* const real =
      Real<bool(const Condition*)>(EFEDLLM_MANGLED_CONST("9Condition4EvalEv"));
  if (current_mutex == nullptr) return real(this);
  void* const mutex = current_mutex;
  __tsan_acquire(mutex);
  const bool value = real(this);
  __tsan_release(mutex);
  return value;
}

#define EFEDLLM_WRAP(releases, acquires, name, suffix)                         \
  void Mutex::name() {                                                         \
    static auto* const real = Real<void(Mutex*)>(EFEDLLM_MANGLED("5" suffix)); \
    const Scope scope(this, releases, acquires);                               \
    real(this);                                                                \
  }
EFEDLLM_WRAP(false, true, Lock, "Mutex4LockEv")
EFEDLLM_WRAP(true, false, Unlock, "Mutex6UnlockEv")
EFEDLLM_WRAP(false, true, ReaderLock, "Mutex10ReaderLockEv")
EFEDLLM_WRAP(true, false, ReaderUnlock, "Mutex12ReaderUnlockEv")
#undef EFEDLLM_WRAP

bool Mutex::TryLock() {
  static auto* const real = Real<bool(Mutex*)>(EFEDLLM_MANGLED("5Mutex7TryLockEv"));
  const Scope scope(this, false, true);
  return real(this);
}

#define EFEDLLM_WRAP(releases, name, suffix)                                                    \
  void Mutex::name(const Condition& condition) {                                                \
    static auto* const real =                                                                   \
        Real<void(Mutex*, const Condition&)>(EFEDLLM_MANGLED("5" suffix "ERKNS0_9ConditionE")); \
    const Scope scope(this, releases, true);                                                    \
    real(this, condition);                                                                      \
  }
EFEDLLM_WRAP(true, Await, "Mutex5Await")
EFEDLLM_WRAP(false, LockWhen, "Mutex8LockWhen")
EFEDLLM_WRAP(false, ReaderLockWhen, "Mutex14ReaderLockWhen")
#undef EFEDLLM_WRAP

#define EFEDLLM_WRAP(releases, name, suffix, Limit, limit_suffix)               \
  bool Mutex::name(const Condition& condition, Limit limit) {                   \
    static auto* const real = Real<bool(Mutex*, const Condition&, Limit)>(      \
        EFEDLLM_MANGLED("5" suffix "ERKNS0_9ConditionENS0_" limit_suffix "E")); \
    const Scope scope(this, releases, true);                                    \
    return real(this, condition, limit);                                        \
  }
EFEDLLM_WRAP(true, AwaitWithTimeout, "Mutex16AwaitWithTimeout", Duration, "8Duration")
EFEDLLM_WRAP(true, AwaitWithDeadline, "Mutex17AwaitWithDeadline", Time, "4Time")
EFEDLLM_WRAP(false, LockWhenWithTimeout, "Mutex19LockWhenWithTimeout", Duration, "8Duration")
EFEDLLM_WRAP(false, LockWhenWithDeadline, "Mutex20LockWhenWithDeadline", Time, "4Time")
#undef EFEDLLM_WRAP

void CondVar::Wait(Mutex* mutex) {
  static auto* const real =
      Real<void(CondVar*, Mutex*)>(EFEDLLM_MANGLED("7CondVar4WaitEPNS0_5MutexE"));
  const Scope scope(mutex, true, true);
  real(this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const real = Real<bool(CondVar*, Mutex*, Duration)>(
      EFEDLLM_MANGLED("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE"));
  const Scope scope(mutex, true, true);
  return real(this, mutex, timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const real = Real<bool(CondVar*, Mutex*, Time)>(
      EFEDLLM_MANGLED("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE"));
  const Scope scope(mutex, true, true);
  return real(this, mutex, deadline);
}

ABSL_NAMESPACE_END
}  // namespace absl

#endif
#endif
