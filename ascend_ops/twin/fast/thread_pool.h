// The threads behind the logical cores: persistent, woken once a kernel.
#ifndef ASCEND_TWIN_FAST_THREAD_POOL_H_
#define ASCEND_TWIN_FAST_THREAD_POOL_H_

#include <cstdint>

namespace ascend_twin {

// Threads that a kernel runs on, the caller's among them: GLM2_NUM_THREADS, else the processors
// that this process may run on.
uint32_t NumThreads();

// Changes it; at least 1.
void SetNumThreads(uint32_t count);

// Calls task(context, index) once for each index below `count`, on whichever thread is there first,
// and returns when all are done; count is below 2^20. Callers from several threads take turns. A
// child of fork() starts threads of its own.
void ParallelFor(uint32_t count, void (*task)(void*, uint32_t), void* context);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_THREAD_POOL_H_
