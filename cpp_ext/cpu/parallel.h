// A small pool of threads.
#pragma once

#include <cstdint>

namespace awase::cpu {

// How many threads a call may use: AWASE_THREADS or the cores this process may use (affinity and cgroup quota).
int threads();
void set_threads(int count);  // 0: the default

// Calls body(context, begin, end) for pieces that together cover 0 .. count, each of at least `grain` (but the last),
// on up to threads() threads, and returns when all are done. Pieces are handed out one by one, so a slow core takes
// fewer. A call from inside a body, or while another thread's call has the pool, runs all pieces itself. body must not
// throw.
void parallel(int64_t count, int64_t grain, void (*body)(void *context, int64_t begin, int64_t end), void *context);

}  // namespace awase::cpu
