// A stackful fiber: one role of a logical core. Switching costs no system call.
#ifndef ASCEND_TWIN_FAST_FIBER_H_
#define ASCEND_TWIN_FAST_FIBER_H_

#include <cstddef>

namespace ascend_twin {

// Owns a stack with a guard page and runs one function on it, on demand. A fiber belongs to the
// thread that resumes it.
class Fiber {
  public:
    using Entry = void (*)(void*);

    Fiber();
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // Prepares entry(argument) to run at the next Resume. What ran before is abandoned.
    void Reset(Entry entry, void* argument);

    // Runs until the function yields or returns. Call it from outside any fiber.
    void Resume();

    // Goes back to Resume's caller. Call it from inside the fiber.
    void Yield();

    bool Done() const { return done_; }

  private:
    static void Main(Fiber* self);
    friend void FiberStart(Fiber* self);

    void* stackBase_ = nullptr;
    size_t mappedBytes_ = 0;
    void* fiberSp_ = nullptr;
    void* callerSp_ = nullptr;
    Entry entry_ = nullptr;
    void* argument_ = nullptr;
    bool done_ = true;
    // Of AddressSanitizer and ThreadSanitizer, unused without them.
    void* fakeStack_ = nullptr;
    const void* callerStack_ = nullptr;
    size_t callerStackBytes_ = 0;
    void* tsanFiber_ = nullptr;
    void* tsanCaller_ = nullptr;
};

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_FIBER_H_
