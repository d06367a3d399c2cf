// Fibers with a hand-written switch for x86-64 and AArch64, announced to the sanitizers.
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// Saves the callee-saved registers on the running stack and its pointer in *from, then takes up
// `to`.
extern "C" void AscendTwinSwitch(void** from, void* to);
// First code of a fresh fiber: calls AscendTwinFiberMain with the register that Reset filled.
extern "C" void AscendTwinTrampoline();
extern "C" void AscendTwinFiberMain(ascend_twin::Fiber* self);

#if defined(__x86_64__)
asm(R"(
    .text
    .globl AscendTwinSwitch
    .hidden AscendTwinSwitch
    .type AscendTwinSwitch, @function
AscendTwinSwitch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size AscendTwinSwitch, .-AscendTwinSwitch

    .globl AscendTwinTrampoline
    .hidden AscendTwinTrampoline
    .type AscendTwinTrampoline, @function
AscendTwinTrampoline:
    movq %r12, %rdi
    call AscendTwinFiberMain
    ud2
    .size AscendTwinTrampoline, .-AscendTwinTrampoline
)");
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl AscendTwinSwitch
    .hidden AscendTwinSwitch
    .type AscendTwinSwitch, %function
AscendTwinSwitch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size AscendTwinSwitch, .-AscendTwinSwitch

    .globl AscendTwinTrampoline
    .hidden AscendTwinTrampoline
    .type AscendTwinTrampoline, %function
AscendTwinTrampoline:
    mov x0, x19
    bl AscendTwinFiberMain
    brk #1
    .size AscendTwinTrampoline, .-AscendTwinTrampoline
)");
#else
#error "the twin's fibers are written for x86-64 and AArch64"
#endif

namespace ascend_twin {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

}  // namespace

Fiber::Fiber() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mappedBytes_ = kStackBytes + page;
    stackBase_ = mmap(nullptr, mappedBytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stackBase_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(stackBase_, page, PROT_NONE);  // a kernel that overruns its stack faults here
#if defined(__SANITIZE_THREAD__)
    tsanFiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
    munmap(stackBase_, mappedBytes_);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsanFiber_);
#endif
}

void Fiber::Reset(Entry entry, void* argument) {
#if defined(__SANITIZE_THREAD__)
    // A new one each time: what ran before never returned from the calls that it was in, and
    // ThreadSanitizer has room for 65,536 of them.
    __tsan_destroy_fiber(tsanFiber_);
    tsanFiber_ = __tsan_create_fiber(0);
#endif
    entry_ = entry;
    argument_ = argument;
    done_ = false;
    auto* top = reinterpret_cast<uint64_t*>(static_cast<uint8_t*>(stackBase_) + mappedBytes_);
#if defined(__x86_64__)
    // As AscendTwinSwitch leaves a stack: control words, r15 r14 r13 r12 rbx rbp, return address.
    uint64_t* sp = top - 10;
    uint32_t controlWords[2];
    asm volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(controlWords[0]), "=m"(controlWords[1]));
    sp[0] = static_cast<uint64_t>(controlWords[1]) << 32 | controlWords[0];
    sp[1] = sp[2] = sp[3] = 0;
    sp[4] = reinterpret_cast<uint64_t>(this);
    sp[5] = sp[6] = 0;
    sp[7] = reinterpret_cast<uint64_t>(&AscendTwinTrampoline);
    sp[8] = sp[9] = 0;
#else
    uint64_t* sp = top - 20;
    for (uint32_t i = 0; i < 20; ++i) sp[i] = 0;
    sp[0] = reinterpret_cast<uint64_t>(this);
    sp[11] = reinterpret_cast<uint64_t>(&AscendTwinTrampoline);
#endif
    fiberSp_ = sp;
    fakeStack_ = nullptr;
}

void Fiber::Resume() {
#if defined(__SANITIZE_ADDRESS__)
    void* callerFakeStack = nullptr;
    __sanitizer_start_switch_fiber(&callerFakeStack, stackBase_, mappedBytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    tsanCaller_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsanFiber_, 0);
#endif
    AscendTwinSwitch(&callerSp_, fiberSp_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(callerFakeStack, nullptr, nullptr);
#endif
}

void Fiber::Yield() {
#if defined(__SANITIZE_ADDRESS__)
    // A null fake stack tells the sanitizer that this fiber does not come back.
    __sanitizer_start_switch_fiber(done_ ? nullptr : &fakeStack_, callerStack_, callerStackBytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(tsanCaller_, 0);
#endif
    AscendTwinSwitch(&fiberSp_, callerSp_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fakeStack_, &callerStack_, &callerStackBytes_);
#endif
}

void Fiber::Main(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self->callerStack_, &self->callerStackBytes_);
#endif
    self->entry_(self->argument_);
    self->done_ = true;
    self->Yield();
}

void FiberStart(Fiber* self) { Fiber::Main(self); }

}  // namespace ascend_twin

extern "C" __attribute__((visibility("hidden"), used)) void AscendTwinFiberMain(
    ascend_twin::Fiber* self) {
    ascend_twin::FiberStart(self);
    std::abort();  // a finished fiber is never resumed
}
