// Workers spin for some microseconds before they sleep: a decode step launches kernels back to
// back.
#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ascend_twin {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr auto kSpinTime = std::chrono::microseconds(50);

inline void Pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

uint32_t DefaultThreads() {
    if (const char* text = std::getenv("GLM2_NUM_THREADS")) {
        char* end = nullptr;
        const long wanted = std::strtol(text, &end, 10);
        if (end != text && *end == '\0' && wanted >= 1 &&
            wanted <= static_cast<long>(kMaxThreads)) {
            return static_cast<uint32_t>(wanted);
        }
    }
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        return static_cast<uint32_t>(std::max(1, CPU_COUNT(&allowed)));
    }
    return std::max(1u, std::thread::hardware_concurrency());
}

// Runs one job at a time on `threads - 1` workers and the caller.
class Pool {
  public:
    explicit Pool(uint32_t threads) : threads_(threads) {
        try {
            for (uint32_t i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
        } catch (...) {  // no room for another thread: the caller hears of it, the others end
            Stop();
            throw;
        }
    }

    ~Pool() { Stop(); }

    uint32_t threads() const { return threads_; }

    // Whoever is there first takes the next index: a short job is done before a worker has woken.
    void Run(uint32_t count, void (*task)(void*, uint32_t), void* context) {
        task_ = task;
        context_ = context;
        done_.store(0, std::memory_order_relaxed);
        const uint32_t number = NumberOf(ticket_.load(std::memory_order_relaxed)) + 1;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ticket_.store(TicketOf(number, count), std::memory_order_release);
        }
        wake_.notify_all();
        RunIndices(NumberOf(TicketOf(number, count)));
        for (uint32_t spins = 0; done_.load(std::memory_order_acquire) != count; ++spins) {
            // A worker may share this processor: let it have its turn now and then.
            if (spins % 1024 == 1023) std::this_thread::yield();
            Pause();
        }
    }

  private:
    void Stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_.store(true);
            ticket_.store(TicketOf(NumberOf(ticket_.load()) + 1, 0));
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    // A job's number, how many indices it has and the next one, in one word: who takes an index
    // knows that it is of the job that he saw.
    static constexpr uint32_t kIndexBits = 20;
    static uint64_t TicketOf(uint32_t number, uint32_t count) {
        return uint64_t{number} << (2 * kIndexBits) | uint64_t{count} << kIndexBits;
    }
    static uint32_t NumberOf(uint64_t ticket) {
        return static_cast<uint32_t>(ticket >> (2 * kIndexBits));
    }
    static uint32_t CountOf(uint64_t ticket) {
        return static_cast<uint32_t>(ticket >> kIndexBits) & ((1u << kIndexBits) - 1);
    }
    static uint32_t NextOf(uint64_t ticket) {
        return static_cast<uint32_t>(ticket) & ((1u << kIndexBits) - 1);
    }

    void RunIndices(uint32_t number) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (NumberOf(ticket) == number && NextOf(ticket) < CountOf(ticket)) {
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel))
                continue;
            task_(context_, NextOf(ticket));
            done_.fetch_add(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
    }

    void Work() {
        uint32_t seen = 0;
        while (true) {
            seen = AwaitJob(seen);
            if (stopping_.load()) return;
            RunIndices(seen);
        }
    }

    // The number of a job other than `seen`.
    uint32_t AwaitJob(uint32_t seen) {
        const auto number = [this] { return NumberOf(ticket_.load(std::memory_order_acquire)); };
        const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
        do {
            for (uint32_t i = 0; i < 64; ++i) {
                const uint32_t now = number();
                if (now != seen) return now;
                Pause();
            }
        } while (std::chrono::steady_clock::now() < deadline);
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return number() != seen; });
        return number();
    }

    const uint32_t threads_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> ticket_{0};  // of the job that runs, or ran last
    std::atomic<uint32_t> done_{0};    // of its indices
    std::atomic<bool> stopping_{false};
    void (*task_)(void*, uint32_t) = nullptr;
    void* context_ = nullptr;
};

struct Shared {
    std::mutex mutex;
    std::unique_ptr<Pool> pool;
    std::atomic<uint32_t> threads{DefaultThreads()};
};

Shared& Instance();

// A fork waits for its turn, so that the child does not inherit a lock whose holder is not there.
void BeforeFork() { Instance().mutex.lock(); }
void AfterForkInParent() { Instance().mutex.unlock(); }
void AfterForkInChild() {
    Instance().pool.release();  // its threads exist in the parent alone
    Instance().mutex.unlock();
}

// Never destroyed: kernels may run from threads that outlive main, and a forked child that exits
// has no workers to join.
Shared& Instance() {
    static Shared* shared = [] {
        pthread_atfork(&BeforeFork, &AfterForkInParent, &AfterForkInChild);
        return new Shared;
    }();
    return *shared;
}

}  // namespace

uint32_t NumThreads() { return Instance().threads.load(); }

void SetNumThreads(uint32_t count) { Instance().threads.store(std::clamp(count, 1u, kMaxThreads)); }

void ParallelFor(uint32_t count, void (*task)(void*, uint32_t), void* context) {
    Shared& shared = Instance();
    const uint32_t threads = shared.threads.load();
    if (count <= 1 || threads == 1) {
        for (uint32_t i = 0; i < count; ++i) task(context, i);
        return;
    }
    std::lock_guard<std::mutex> turn(shared.mutex);
    if (!shared.pool || shared.pool->threads() != threads) {
        shared.pool.reset();
        shared.pool = std::make_unique<Pool>(threads);
    }
    shared.pool->Run(count, task, context);
}

}  // namespace ascend_twin
