// Builds the roles of a launch and moves them: in order, or as an adversary would.
#include "engine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "timing.h"

namespace ascend_twin {
namespace check {
namespace {

thread_local Context tContext;
thread_local Engine* tEngine = nullptr;

// What L0B refers to before anything was loaded.
alignas(64) uint8_t tPoisonedFractal[kFractalBytes];

void PoisonMemory(CoreMemory* memory, uint8_t byte) {
    std::memset(tPoisonedFractal, byte, sizeof(tPoisonedFractal));
    std::memset(memory->ub, byte, sizeof(memory->ub));
    std::memset(memory->l1, byte, sizeof(memory->l1));
    std::memset(memory->l0a, byte, sizeof(memory->l0a));
    std::memset(memory->l0c, byte, sizeof(memory->l0c));
    for (uint32_t i = 0; i < RightOperand::kFractals; ++i) {
        memory->l0b.Place(i, {tPoisonedFractal, 0}, FractalForm::kHalfRowsN);
    }
}

}  // namespace

Engine::Engine(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments,
               const GmTable& gm, uint32_t physicalCores, const Pass& pass)
    : config_(config),
      kernel_(kernel),
      arguments_(arguments),
      gm_(gm),
      physicalCores_(physicalCores),
      pass_(pass),
      sites_(1),
      random_(pass.seed) {
    BuildRoles();
}

void Engine::BuildRoles() {
    const bool mix = config_.kernelType == KernelType::kMixAic1Aiv2;
    const uint32_t perCore = mix ? 1 + kAivPerCore : 1;
    const size_t agents = Checks() ? config_.numBlocks * perCore * kPipes : 0;
    const auto nothing = std::make_shared<const Clock>(agents);
    meeting_.resize(agents);
    for (uint32_t block = 0; block < config_.numBlocks; ++block) {
        auto core = std::make_unique<CoreState>();
        core->block = block;
        core->memory.reset(new CoreMemory);
        PoisonMemory(core->memory.get(), pass_.poison);
        if (Checks()) {
            for (auto& ub : core->ub) ub = std::make_unique<LocalShadow>(kUbBytes);
            core->l1 = std::make_unique<LocalShadow>(mix ? kL1Bytes : 0);
            core->l0a = std::make_unique<LocalShadow>(mix ? kL0aBytes : 0);
            core->l0b = std::make_unique<LocalShadow>(mix ? kL0bBytes : 0);
            core->l0c = std::make_unique<LocalShadow>(mix ? kL0cBytes : 0);
        }
        for (uint32_t i = mix ? 0 : 1; i < (mix ? 1 + kAivPerCore : 2); ++i) {
            auto role = std::make_unique<RoleState>();
            role->index = static_cast<uint32_t>(roles_.size());
            role->role = static_cast<Role>(i);
            role->core = core.get();
            for (Clock& clock : role->clocks) clock.resize(agents);
            role->acquired = nothing;
            for (ClockRef& joined : role->joined) joined = nothing;
            core->roles[i] = role.get();
            roles_.push_back(std::move(role));
        }
        cores_.push_back(std::move(core));
    }
}

Engine& Engine::Current() { return *tEngine; }

void Engine::RunRole(void* argument) {
    const Engine* engine = static_cast<const Engine*>(argument);
    engine->kernel_(engine->arguments_);
}

bool Engine::Run() {
    Engine* const outerEngine = std::exchange(tEngine, this);
    const Context outer = tContext;
    tContext = Context();
    tContext.numBlocks = config_.numBlocks;
    tContext.kernelType = config_.kernelType;
    tContext.tilingKey = config_.tilingKey;
    for (auto& role : roles_) role->fiber.Reset(&RunRole, this);
    const bool ended = pass_.order == Order::kAdversarial ? RunAdversarial() : RunInOrder();
    if (!ended) ReportHang();
    if (Checks()) Finish();
    tContext = outer;
    tEngine = outerEngine;
    return ended;
}

// ---- Moving ----

void Engine::Resume(RoleState& role) {
    RoleState* const outer = std::exchange(running_, &role);
    tContext.memory = role.core->memory.get();
    tContext.role = role.role;
    tContext.block = role.core->block;
    role.fiber.Resume();
    running_ = outer;
}

void Engine::BlockRunning(const Waiting& waiting) {
    RoleState& role = *running_;
    role.waiting = waiting;
    while (!CanPass(role)) role.fiber.Yield();
    role.waiting = {};
}

bool Engine::CanPass(const RoleState& role) const {
    const Waiting& waiting = role.waiting;
    switch (waiting.on) {
        case Waiting::On::kNothing:
            return true;
        case Waiting::On::kCrossFlag:
            if (!role.IsAic()) return role.crossFlags[waiting.id].count > 0;
            return role.crossFlagsOfAiv[0][waiting.id].count > 0 &&
                   role.crossFlagsOfAiv[1][waiting.id].count > 0;
        case Waiting::On::kAll:
            return round_ != waiting.id;
        case Waiting::On::kEvent:
            return role.flags[static_cast<uint32_t>(waiting.event)][waiting.id].sets > 0;
        default:
            return role.queued == 0;
    }
}

bool Engine::StartsNow(pipe_t pipe) const {
    return pass_.order != Order::kAdversarial && running_->queues[pipe].empty();
}

void Engine::Push(pipe_t pipe, Entry entry) {
    entry.acquired = running_->acquired;
    entry.issued = running_->issueAt;
    running_->queues[pipe].push_back(std::move(entry));
    ++running_->queued;
    if (pass_.order != Order::kAdversarial) Pump(*running_);
}

bool Engine::CanExecute(const RoleState& role, const Entry& entry) const {
    return entry.kind != Entry::Kind::kWait ||
           role.flags[static_cast<uint32_t>(entry.event)][entry.id].sets > 0;
}

void Engine::Execute(RoleState& role, pipe_t pipe, size_t at) {
    std::deque<Entry>& queue = role.queues[pipe];
    const Entry entry = std::move(queue[at]);
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(at));
    --role.queued;
    const Context context = tContext;
    RoleState* const outer = std::exchange(running_, &role);
    tContext.memory = role.core->memory.get();
    tContext.role = role.role;
    tContext.block = role.core->block;
    switch (entry.kind) {
        case Entry::Kind::kOperation:
            BeginOperation(role, entry.operation, entry.acquired, entry.issued);
            entry.body();
            EndOperation(role);
            break;
        case Entry::Kind::kSet:
            RaiseFlag(role, entry.event, entry.id, entry.site, entry.acquired, entry.issued);
            break;
        case Entry::Kind::kWait:
            TakeFlag(role, entry.event, entry.id, entry.site);
            break;
        case Entry::Kind::kBarrier:
            if (Checks()) role.clocks[pipe][role.index * kPipes + pipe] = role.issued[pipe];
            if (pipe == PIPE_M) role.smallMmad = 0;
            break;
        case Entry::Kind::kCrossSet:
            if (pass_.order == Order::kAdversarial) {
                inFlight_.push_back({&role, entry.id, entry.site});
            } else {
                Deliver(role, entry.id, entry.site, Publish(role, pipe, entry.acquired),
                        std::max(role.freeAt[pipe], entry.issued));
            }
            break;
        case Entry::Kind::kArrive:
            Arrive(role, Publish(role, pipe, entry.acquired),
                   std::max(role.freeAt[pipe], entry.issued));
            break;
    }
    running_ = outer;
    tContext = context;
}

// ---- Calls ----

void Engine::Touch(Site site) {
    RoleState& role = *running_;
    if (!role.initialised && Checks() && role.lastSite.line == 0) {
        // InitSocState itself passes here first; whoever comes second has missed it.
        role.lastSite = site;
        return;
    }
    if (!role.initialised) {
        role.initialised = true;
        Complain("init_soc_state", role.lastSite, "", "a call before InitSocState",
                 "InitSocState first in a kernel of static tensors",
                 "call it at the kernel's start");
    }
    role.lastSite = site;
}

void Engine::BeginOperation(RoleState& role, const Operation& operation, const ClockRef& acquired,
                            double issued) {
    role.drained = false;
    usedCube_ = usedCube_ || operation.pipe == PIPE_M;
    if (pass_.order == Order::kChecked) {
        const uint32_t own = role.index * kPipes + operation.pipe;
        if (acquired != role.joined[operation.pipe]) {
            Join(&role.clocks[operation.pipe], *acquired);
            role.joined[operation.pipe] = acquired;
        }
        const uint32_t number = ++role.issued[operation.pipe];
        // These two end a call before they begin the next; the others overlap their own.
        if (operation.pipe == PIPE_S || operation.pipe == PIPE_M) {
            role.clocks[operation.pipe][own] = number - 1;
        }
        CheckHazards(role, operation, number);
        CountMoves(role, operation);
        const double cycles = CyclesOf(operation, TouchesWorkspace(operation));
        double& freeAt = role.freeAt[operation.pipe];
        freeAt = std::max(freeAt, issued) + cycles;
        role.busy[operation.pipe] += cycles;
    }
}

void Engine::EndOperation(RoleState& role) {
    CoreMemory* memory = role.core->memory.get();
    memory->toUb[static_cast<uint32_t>(role.role)].Make();
    if (!role.IsAic()) return;
    if (pass_.order != Order::kChecked) {
        // The fast twin chooses its order of additions by where the operands lie. Here nothing may
        // depend on who came first, so L0B keeps what it loads, and each product is made at once.
        BeforeL1Write(memory->l1, memory->l1 + kL1Bytes);
        FlushProduct();
    }
    // The fast twin stops where a tile is read again after Fixpipe; here the poison shows it.
    for (const float*& tile : memory->movedOut) tile = nullptr;
}

void Engine::Add(const char* rule, Severity severity, const RoleState& role, Site site,
                 const std::string& call, const Access* access, const std::string& got,
                 const std::string& wanted, const std::string& advice) {
    static constexpr const char* kRoles[] = {"AIC", "AIV0", "AIV1"};
    Finding finding;
    finding.rule = rule;
    finding.severity = severity;
    finding.kernel = config_.kernelName;
    finding.core = role.core->block;
    finding.role = kRoles[static_cast<uint32_t>(role.role)];
    finding.file = site.file;
    finding.line = site.line;
    finding.call = call;
    finding.got = got;
    finding.wanted = wanted;
    finding.advice = advice;
    if (access != nullptr) {
        finding.tensor = NameOf(access->space);
        uint64_t start = 0;
        if (access->space == Space::kGm && !gm_.Empty()) {
            uint32_t tensor = gm_.Find(access->begin);
            if (tensor == GmTable::kNone) tensor = gm_.Before(access->begin);
            finding.tensor = gm_[tensor].name;
            start = reinterpret_cast<uint64_t>(gm_[tensor].data);
        }
        finding.begin = access->begin - start;
        finding.end = access->Last() - start;
    }
    findings_.Add(std::move(finding));
}

void Engine::Complain(const char* rule, Site site, const std::string& call, const std::string& got,
                      const std::string& wanted, const std::string& advice) {
    if (!Checks()) return;
    Add(rule, Severity::kError, *running_, site, call, nullptr, got, wanted, advice);
}

}  // namespace check

// Of the fast twin's calls, which the check twin's end in.
Context& CurrentContext() { return check::tContext; }

}  // namespace ascend_twin
