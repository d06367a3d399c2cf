// One pass over a kernel: every role of every core a fiber of the calling thread, every pipe a
// queue. Calls go through queues whatever the order is; what differs is who moves next.
#ifndef ASCEND_TWIN_CHECK_ENGINE_H_
#define ASCEND_TWIN_CHECK_ENGINE_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "counters.h"
#include "findings.h"
#include "gm_table.h"
#include "launch.h"
#include "role.h"

namespace ascend_twin {
namespace check {

enum class Order : uint8_t {
    kChecked,     // in order, with all checks; products as the fast twin groups them
    kPlain,       // in order, without
    kAdversarial  // each call as late as its flags allow
};

struct Pass {
    Order order;
    uint32_t seed = 0;
    uint8_t poison = 0xff;
};

class Engine {
  public:
    Engine(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments,
           const GmTable& gm, uint32_t physicalCores, const Pass& pass);

    // False: the kernel hangs. Findings then hold where.
    bool Run();

    Findings& found() { return findings_; }
    const Counters& counters() const { return counters_; }
    bool usedCube() const { return usedCube_; }
    const std::string& hang() const { return hang_; }

    // ---- For calls of the running role ----
    static Engine& Current();
    RoleState& running() { return *running_; }
    const GmTable& gm() const { return gm_; }
    bool Checks() const { return pass_.order == Order::kChecked; }
    void Add(const char* rule, Severity severity, const RoleState& role, Site site,
             const std::string& call, const Access* access, const std::string& got,
             const std::string& wanted, const std::string& advice);
    // A finding of the running role, in the pass that checks.
    void Complain(const char* rule, Site site, const std::string& call, const std::string& got,
                  const std::string& wanted, const std::string& advice);
    void Touch(Site site);
    bool StartsNow(pipe_t pipe) const;
    void Push(pipe_t pipe, Entry entry);
    void BeginOperation(RoleState& role, const Operation& operation, const ClockRef& acquired,
                        double issued);
    void EndOperation(RoleState& role);
    void Set(HardEvent event, uint32_t id, Site site);
    void Wait(HardEvent event, uint32_t id, Site site);
    void Barrier(pipe_t pipe, Site site);
    void CrossSet(pipe_t pipe, uint32_t id, Site site);
    void CrossWait(uint32_t id, Site site);
    void MeetAll(Site site);
    void Clean(uint64_t address, uint64_t bytes);

  private:
    struct InFlight {  // a CrossCoreSetFlag that has not taken effect
        RoleState* from;
        uint32_t id;
        Site site;
    };

    void BuildRoles();
    static void RunRole(void* argument);
    void Resume(RoleState& role);
    void BlockRunning(const Waiting& waiting);
    bool CanPass(const RoleState& role) const;
    bool CanExecute(const RoleState& role, const Entry& entry) const;
    void Execute(RoleState& role, pipe_t pipe, size_t at);
    bool Pump(RoleState& role);
    bool RunInOrder();
    bool RunAdversarial();
    size_t PickEntry(const RoleState& role, pipe_t pipe);
    void ReportHang();
    void Finish();
    void CheckFlagsLeft(const RoleState& role);
    std::string Position(const RoleState& role) const;

    void RaiseFlag(RoleState& role, HardEvent event, uint32_t id, Site site,
                   const ClockRef& acquired, double issued);
    void TakeFlag(RoleState& role, HardEvent event, uint32_t id, Site site);
    void Deliver(RoleState& role, uint32_t id, Site site, const Clock& clock, double time);
    void Arrive(RoleState& role, const Clock& clock, double time);
    Clock Publish(RoleState& role, pipe_t pipe, const ClockRef& acquired);
    void Acquire(RoleState& role, const Clock& clock);

    void CheckHazards(RoleState& role, const Operation& operation, uint32_t number);
    void CheckLocal(RoleState& role, const Operation& operation, const Access& access,
                    const Visit& visit);
    void CheckGm(RoleState& role, const Operation& operation, const Access& access,
                 const Visit& visit);
    void CheckContents(RoleState& role, const Operation& operation, const Access& access,
                       const Cell& cell, uint32_t bytes, uint64_t at);
    void ReportClash(RoleState& role, const Operation& operation, const Access& access,
                     const Record& other, Clash clash, uint64_t at);
    void CountMoves(RoleState& role, const Operation& operation);
    bool TouchesWorkspace(const Operation& operation) const;
    void CountTime();
    uint16_t SiteNumber(const char* name, Site site);
    std::string AgentName(uint16_t agent) const;

    const LaunchConfig& config_;
    void (*kernel_)(const void*);
    const void* arguments_;
    const GmTable& gm_;
    uint32_t physicalCores_;
    Pass pass_;
    Findings findings_;
    Counters counters_;
    std::string hang_;
    std::vector<std::unique_ptr<CoreState>> cores_;
    std::vector<std::unique_ptr<RoleState>> roles_;
    RoleState* running_ = nullptr;
    bool usedCube_ = false;
    GmShadow gmShadow_;
    struct NamedSite {
        const char* name;
        Site site;
    };
    std::vector<NamedSite> sites_;
    std::map<std::pair<const char*, uint32_t>, uint16_t> siteNumbers_;
    // SyncAll.
    uint32_t round_ = 0;
    uint32_t arrived_ = 0;
    Clock meeting_;
    double meetingTime_ = 0;
    std::vector<uint32_t> callers_;
    // The adversary.
    std::mt19937 random_;
    std::vector<InFlight> inFlight_;
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_ENGINE_H_
