// Looks at the bytes of each call as it runs: races, uninitialised operands, tensors that share
// memory, cores that write side by side; and counts what moves.
#include <string>

#include "engine.h"

namespace ascend_twin {
namespace check {
namespace {

constexpr uint64_t kGoodBurst = 16 * 1024;

uint32_t BytesMask(uint64_t from, uint64_t to) {
    const uint64_t low = (uint64_t{1} << to) - 1;
    return static_cast<uint32_t>(low & ~((uint64_t{1} << from) - 1));
}

// f(cell, bytes of it) for a range of bytes.
template <typename F>
void ForEachCell(uint64_t begin, uint64_t bytes, const F& f) {
    const uint64_t end = begin + bytes;
    for (uint64_t cell = begin / kCellBytes; cell * kCellBytes < end; ++cell) {
        const uint64_t start = cell * kCellBytes;
        const uint64_t from = begin > start ? begin - start : 0;
        const uint64_t to = end - start < kCellBytes ? end - start : kCellBytes;
        f(cell, BytesMask(from, to));
    }
}

std::string At(const char* name, Site site) {
    const std::string path = site.file;
    return std::string(name) + " at " + path.substr(path.rfind('/') + 1) + ":" +
           std::to_string(site.line);
}

const Access* Find(const Operation& operation, bool write) {
    for (uint32_t i = 0; i < operation.numAccesses; ++i) {
        if (operation.accesses[i].write == write) return &operation.accesses[i];
    }
    return nullptr;
}

}  // namespace

uint16_t Engine::SiteNumber(const char* name, Site site) {
    const auto [at, isNew] =
        siteNumbers_.try_emplace({site.file, site.line}, static_cast<uint16_t>(sites_.size()));
    if (isNew) sites_.push_back({name, site});
    return at->second;
}

std::string Engine::AgentName(uint16_t agent) const {
    static constexpr const char* kRoles[] = {"AIC", "AIV0", "AIV1"};
    const RoleState& role = *roles_[agent / kPipes];
    return "core " + std::to_string(role.core->block) + " " +
           kRoles[static_cast<uint32_t>(role.role)] + " pipe " +
           NameOf(static_cast<pipe_t>(agent % kPipes));
}

void Engine::CheckHazards(RoleState& role, const Operation& operation, uint32_t number) {
    const uint32_t own = role.index * kPipes + operation.pipe;
    const uint16_t site = SiteNumber(operation.name, operation.site);
    if (operation.pipe == PIPE_M) {
        if (operation.accumulates && role.smallMmad != 0) {
            Add("missing_pipe_m", Severity::kError, role, operation.site, operation.name, nullptr,
                "an accumulating Mmad right after a small one, " +
                    At(sites_[role.smallMmad].name, sites_[role.smallMmad].site),
                "PipeBarrier<PIPE_M> between them",
                "(m / 16) * (n / 16) is below 10: the first sum may not have arrived");
        }
        role.smallMmad = operation.small ? site : 0;
    }
    for (uint32_t i = 0; i < operation.numAccesses; ++i) {
        const Access& access = operation.accesses[i];
        if (access.Empty()) continue;
        const Visit visit = {{number, 0, static_cast<uint16_t>(own), site, access.write,
                              access.atomic, operation.bytewise},
                             &role.clocks[operation.pipe],
                             role.clocks[operation.pipe][own]};
        if (access.space == Space::kGm) {
            CheckGm(role, operation, access, visit);
        } else {
            CheckLocal(role, operation, access, visit);
        }
    }
}

void Engine::CheckLocal(RoleState& role, const Operation& operation, const Access& access,
                        const Visit& visit) {
    LocalShadow& shadow = role.core->ShadowOf(access.space, role.role);
    uint8_t origin = 0;
    if (access.write && operation.pipe == PIPE_MTE2) {
        const Access* from = Find(operation, false);
        const uint32_t tensor = from == nullptr ? GmTable::kNone : gm_.Find(from->begin);
        if (tensor != GmTable::kNone && tensor < UINT8_MAX)
            origin = static_cast<uint8_t>(tensor + 1);
    }
    bool reported = false, contents = false;
    access.ForEachRun([&](uint64_t begin, uint64_t bytes) {
        ForEachCell(begin, bytes, [&](uint64_t at, uint32_t mask) {
            Cell& cell = shadow[at];
            Record other;
            const Clash clash = VisitCell(&cell, mask, visit, false, &other);
            if (clash == Clash::kRace && !reported) {
                reported = true;
                ReportClash(role, operation, access, other, clash, at * kCellBytes);
            }
            if (access.write) {
                cell.written |= mask;
                cell.declaration = access.declaration;
                cell.tensor = origin;
            } else if (!contents &&
                       ((cell.written & mask) != mask || cell.declaration != access.declaration)) {
                contents = true;
                CheckContents(role, operation, access, cell, mask, at * kCellBytes);
            }
        });
    });
}

void Engine::CheckContents(RoleState& role, const Operation& operation, const Access& access,
                           const Cell& cell, uint32_t bytes, uint64_t at) {
    const bool cube =
        access.space == Space::kL0a || access.space == Space::kL0b || access.space == Space::kL0c;
    Access place = access;
    place.begin = at;
    place.run = kCellBytes;
    for (uint64_t& count : place.count) count = 1;
    if (cube && (cell.written & bytes) != bytes) {
        const bool sum = access.space == Space::kL0c && operation.accumulates;
        Add(sum ? "mmad_no_init" : "uninitialised_read", Severity::kError, role, operation.site,
            operation.name, &place,
            sum ? "adds to L0C that nothing was written to" : "reads what nothing was written to",
            sum ? "cmatrixInitVal = true in the first Mmad of a sum" : "a load before it",
            sum ? "L0C holds the last kernel's sums" : "load every fractal of the operand");
        return;
    }
    if (cell.declaration == 0 || cell.declaration == access.declaration) return;
    const Declaration& mine = role.declarations[access.declaration - 1u];
    const Declaration& other = role.declarations[cell.declaration - 1u];
    Add("overlap", Severity::kError, role, operation.site, operation.name, &place,
        "reads what was written through another tensor, declared at " +
            At("LocalTensor", other.site) + " over bytes " + std::to_string(other.begin) + " to " +
            std::to_string(other.end),
        "tensors that share no byte; this one has " + std::to_string(mine.begin) + " to " +
            std::to_string(mine.end),
        "correct the addresses; for another view of the same tensor use operator[] or "
        "ReinterpretCast");
}

void Engine::CheckGm(RoleState& role, const Operation& operation, const Access& access,
                     const Visit& visit) {
    bool reported = false, stale = false;
    access.ForEachRun([&](uint64_t begin, uint64_t bytes) {
        const uint32_t tensor = gm_.Find(begin);
        uint64_t start = 0;
        if (tensor != GmTable::kNone) {
            if (gm_[tensor].use == GmUse::kIn && !access.write) return;
            start = reinterpret_cast<uint64_t>(gm_[tensor].data);
        }
        ForEachCell(begin - start, bytes, [&](uint64_t at, uint32_t mask) {
            Cell& cell = gmShadow_.At(tensor == GmTable::kNone ? UINT16_MAX : tensor, at);
            Record other;
            const Clash clash = VisitCell(&cell, mask, visit, true, &other);
            if (clash != Clash::kNone && !reported) {
                reported = true;
                ReportClash(role, operation, access, other, clash, start + at * kCellBytes);
            }
            if (operation.pipe == PIPE_S) {
                if (access.write) cell.scalar |= mask;
                return;
            }
            if ((cell.scalar & mask) == 0 || stale) return;
            stale = true;
            Access place = access;
            place.begin = start + at * kCellBytes;
            place.run = kCellBytes;
            for (uint64_t& count : place.count) count = 1;
            Add("scalar_gm_write", Severity::kError, role, operation.site, operation.name, &place,
                "meets bytes that lie in the scalar unit's cache", "them in GM",
                "call DataCacheCleanAndInvalid after SetValue");
        });
    });
}

void Engine::ReportClash(RoleState& role, const Operation& operation, const Access& access,
                         const Record& other, Clash clash, uint64_t at) {
    const RoleState& otherRole = *roles_[other.agent / kPipes];
    const auto otherPipe = static_cast<pipe_t>(other.agent % kPipes);
    const std::string mine = NameOf(operation.pipe), theirs = NameOf(otherPipe);
    Access place = access;
    place.begin = at;
    place.run = kCellBytes;
    for (uint64_t& count : place.count) count = 1;
    const std::string earlier = std::string(other.write ? "write" : "read") + " of " +
                                AgentName(other.agent) + ", " +
                                At(sites_[other.site].name, sites_[other.site].site);
    const std::string verb = access.write ? "writes" : "reads";
    if (clash == Clash::kNeighbour) {
        // DataCopyPad stores bytes; everything else moves 32 of them or a line of a cache.
        const bool bytewise = operation.bytewise && other.bytewise;
        Add("gm_granule", bytewise ? Severity::kWarning : Severity::kError, role, operation.site,
            operation.name, &place, "writes into the 32 bytes of a " + earlier,
            "one writer for each 32 bytes of GM, or atomics",
            "deal the work so that borders are multiples of 32 bytes: one of the two may be lost");
    } else if (&otherRole != &role) {
        const bool writers = other.write && access.write;
        Add(writers ? "core_conflict" : "race", Severity::kError, role, operation.site,
            operation.name, &place, verb + " while the " + earlier + ", may be under way",
            "an order between the two",
            "CrossCoreSetFlag behind the earlier call, on its pipe or on one that waits for it, "
            "and "
            "CrossCoreWaitFlag before this one; or SyncAll");
    } else if (otherPipe == operation.pipe) {
        Add("missing_barrier", Severity::kError, role, operation.site, operation.name, &place,
            verb + " while the " + earlier + ", may be under way",
            "PipeBarrier<PIPE_" + mine + "> between the two",
            "calls of one pipe overlap unless a barrier keeps them apart");
    } else {
        Add("race", Severity::kError, role, operation.site, operation.name, &place,
            verb + " while the " + earlier + ", may be under way",
            "SetFlag and WaitFlag of " + theirs + "_" + mine + " between the two",
            "set the flag behind the earlier call and wait for it before this one");
    }
}

void Engine::Clean(uint64_t address, uint64_t bytes) {
    gmShadow_.ForEach([&](uint32_t tensor, uint64_t at, Cell& cell) {
        const uint64_t start =
            tensor < gm_.Size() ? reinterpret_cast<uint64_t>(gm_[tensor].data) : 0;
        const uint64_t begin = start + at * kCellBytes;
        if (begin + kCellBytes > address && begin - address < bytes) cell.scalar = 0;
    });
}

bool Engine::TouchesWorkspace(const Operation& operation) const {
    for (uint32_t i = 0; i < operation.numAccesses; ++i) {
        const Access& access = operation.accesses[i];
        if (access.space != Space::kGm) continue;
        const uint32_t tensor = gm_.Find(access.begin);
        return tensor != GmTable::kNone && gm_[tensor].use == GmUse::kWorkspace;
    }
    return false;
}

void Engine::CountMoves(RoleState& role, const Operation& operation) {
    ++counters_.instructions[NameOf(operation.pipe)];
    const Access *from = Find(operation, false), *to = Find(operation, true);
    if (!operation.isCopy || from == nullptr || to == nullptr) return;
    const Access& gm = to->space == Space::kGm ? *to : *from;
    std::string levels[2] = {NameOf(from->space), NameOf(to->space)};
    std::string name = "?";
    uint64_t bytes = gm.Bytes(), bursts = gm.Runs();
    if (gm.space == Space::kGm) {
        const uint32_t tensor = gm_.Find(gm.begin);
        if (tensor != GmTable::kNone) {
            name = gm_[tensor].name;
            if (gm_[tensor].use == GmUse::kWorkspace) {
                levels[to->space == Space::kGm ? 1 : 0] = "workspace";
            }
        }
        if (bytes > 0 && gm.run < kGoodBurst) {
            Add("gm_burst", Severity::kWarning, role, operation.site, operation.name, &gm,
                "runs of " + std::to_string(gm.run) + " bytes", "16384 bytes or more",
                "short bursts leave bandwidth unused");
        }
    } else {
        const uint8_t origin =
            role.core->ShadowOf(from->space, role.role)[from->begin / kCellBytes].tensor;
        if (origin != 0) name = gm_[origin - 1u].name;
        bytes = to->Bytes();
        bursts = bytes / operation.copyUnit;
    }
    if (bytes == 0) return;
    Traffic& traffic = counters_.moves[{levels[0], levels[1], name}];
    traffic.bytes += bytes;
    traffic.bursts += bursts;
}

}  // namespace check
}  // namespace ascend_twin
