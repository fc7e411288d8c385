#include "cpu/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "src/error.h"

namespace awase::cpu {
namespace {

// ---- how many threads ----

// What a container's quota leaves, or a large number. cgroup v2: "max 100000" or "150000 100000" (microseconds).
int quota() {
  double limit = 0, period = 0;
  if (FILE *file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    const bool limited = std::fscanf(file, "%lf %lf", &limit, &period) == 2;
    std::fclose(file);
    if (limited && period > 0) return std::max(1, int(std::ceil(limit / period)));
  }
  return 1 << 16;
}

int cores() {
  int count = int(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
#endif
  return std::max(1, std::min(count, quota()));
}

int from_environment() {
  const char *text = std::getenv("AWASE_THREADS");
  if (!text || !*text) return cores();
  char *end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end || count < 1)
    throw Error(AWASE_INVALID,
                "the environment variable AWASE_THREADS: got '" + std::string(text) + "', expected a whole number from 1");
  return int(std::min<long>(count, cores()));
}

std::atomic<int> limit{0};  // 0: not decided yet

// ---- the pool ----

struct Work {
  int64_t count, piece;
  void (*body)(void *, int64_t, int64_t);
  void *context;
  std::atomic<int64_t> next{0};

  void run() {
    for (;;) {
      const int64_t begin = next.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= count) return;
      body(context, begin, std::min(count, begin + piece));
    }
  }
};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A scheduler likes to wake a thread on the processor of its waker, which is busy with its own share of the work, and
// to move it only milliseconds later. Moves this thread off that processor at once, if it may run on others.
void leave(int processor) {
#if defined(__linux__)
  if (sched_getcpu() != processor) return;
  cpu_set_t allowed, others;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  others = allowed;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0) return;
  sched_setaffinity(0, sizeof(others), &others);
  sched_setaffinity(0, sizeof(allowed), &allowed);
#else
  (void)processor;
#endif
}

int this_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// How often a thread looks for what it waits for before it sleeps: some 50 microseconds.
constexpr int kLooks = 2000;

thread_local bool inside = false;  // this thread is running a body

// Never destroyed: its threads may still be waiting when the process ends.
class Pool {
 public:
  std::mutex busy;  // held by the call that uses the pool

  void run(Work &work, int helpers) {
    grow(helpers);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      active_ = wanted_ = std::min(helpers, started_);
      caller_ = this_processor();
      round_.store(round_ + 1, std::memory_order_release);
    }
    wake_.notify_all();
    work.run();
    std::unique_lock<std::mutex> lock(mutex_);
    active_ -= wanted_;  // those who have not woken yet need not
    wanted_ = 0;
    if (active_ > 0) {  // the others are at their last pieces
      lock.unlock();
      for (int look = 0; look < kLooks && active_.load(std::memory_order_relaxed) > 0; ++look) pause();
      lock.lock();
    }
    done_.wait(lock, [&] { return active_ == 0; });
    work_ = nullptr;
  }

 private:
  void grow(int helpers) {
    while (started_ < helpers) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error &) {
        return;  // no more threads to be had: go on with those there are
      }
      ++started_;
    }
  }

  void serve() {
    inside = true;
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (wanted_ == 0 || round_ == seen) {
        lock.unlock();
        for (int look = 0; look < kLooks && round_.load(std::memory_order_relaxed) == seen; ++look) pause();
        lock.lock();
      }
      wake_.wait(lock, [&] { return wanted_ > 0 && round_ != seen; });
      seen = round_;
      --wanted_;
      Work *work = work_;
      const int caller = caller_;
      lock.unlock();
      leave(caller);
      work->run();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Work *work_ = nullptr;
  int started_ = 0, wanted_ = 0, caller_ = -1;
  std::atomic<int> active_{0};
  std::atomic<uint64_t> round_{0};
};

std::atomic<Pool *> pool{nullptr};

Pool &the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    // A forked child has no threads but its own: it starts with a pool of its own.
    pthread_atfork(nullptr, nullptr, [] {
      pool = new Pool;
      inside = false;
    });
  });
  return *pool;
}

}  // namespace

int threads() {
  int count = limit.load(std::memory_order_relaxed);
  if (!count) limit = count = from_environment();
  return count;
}

void set_threads(int count) {
  if (count < 0)
    throw Error(AWASE_INVALID, "threads: got " + std::to_string(count) + ", expected 1 or more, or 0 for the default");
  limit = count ? std::min(count, cores()) : from_environment();
}

void parallel(int64_t count, int64_t grain, void (*body)(void *context, int64_t begin, int64_t end), void *context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int most = int(std::min<int64_t>(threads(), (count + grain - 1) / grain));
  if (most > 1 && !inside) {
    Pool &shared = the_pool();
    std::unique_lock<std::mutex> mine(shared.busy, std::try_to_lock);
    if (mine.owns_lock()) {
      // About eight pieces a thread: the last one to finish is not far behind.
      Work work{count, std::max(grain, count / (8 * most)), body, context};
      inside = true;
      shared.run(work, most - 1);
      inside = false;
      return;
    }
  }
  body(context, 0, count);
}

}  // namespace awase::cpu
