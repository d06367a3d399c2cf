// Merges findings and words them.
#include "findings.h"

#include <cstring>
#include <utility>

namespace ascend_twin {
namespace check {
namespace {

std::string Key(const Finding& finding) {
    return finding.rule + '|' + finding.kernel + '|' + finding.file + '|' +
           std::to_string(finding.line) + '|' + finding.call + '|' + finding.tensor;
}

// The part of a path that a reader of this project knows.
std::string ShortPath(const std::string& path) {
    const size_t ops = path.rfind("ascend_ops/");
    if (ops != std::string::npos) return path.substr(ops);
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

std::string Describe(const Finding& finding) {
    std::string text = finding.severity == Severity::kError ? "error" : "warning";
    text += " [" + finding.rule + "] " + finding.kernel + " core " + std::to_string(finding.core);
    if (!finding.role.empty()) text += " " + finding.role;
    if (!finding.file.empty()) text += ", " + finding.file + ":" + std::to_string(finding.line);
    if (!finding.call.empty()) text += ", " + finding.call;
    if (!finding.tensor.empty()) {
        text += ", " + finding.tensor + " bytes [" + std::to_string(finding.begin) + ", " +
                std::to_string(finding.end) + ")";
    }
    text += ": " + finding.got + "; wanted: " + finding.wanted + ". " + finding.advice + ".";
    if (finding.count > 1) text += " (" + std::to_string(finding.count) + " times)";
    return text;
}

void Findings::Add(Finding finding) {
    finding.file = ShortPath(finding.file);
    const auto [at, isNew] = index_.try_emplace(Key(finding), all_.size());
    if (isNew) {
        all_.push_back(std::move(finding));
    } else {
        ++all_[at->second].count;
    }
}

void Findings::Clear() {
    all_.clear();
    index_.clear();
}

}  // namespace check
}  // namespace ascend_twin
