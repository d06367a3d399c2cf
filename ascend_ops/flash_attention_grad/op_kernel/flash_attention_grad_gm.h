// What the two sides of the gradient share: cross-core flags and the tensors in GM.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_GM_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_GM_H_

#include "kernel_operator.h"

namespace ascend_ops {

// Cross-core flags, all in mode 2 (AIC and its two AIVs).
constexpr uint16_t kGradFlagScores = 1;  // AIC -> AIV: S and dP of a task are in their slots
constexpr uint16_t kGradFlagProbs = 2;   // AIV -> AIC: P and dS of a task are in their slots
constexpr uint16_t kGradFlagParts = 3;   // AIC -> AIV: parts of dV, dK, dQ are in their slots

struct FlashAttentionGradGm {
    GM_ADDR dO;
    GM_ADDR q;
    GM_ADDR k;
    GM_ADDR v;
    GM_ADDR o;
    GM_ADDR lse;
    GM_ADDR cuSeqlensQ;
    GM_ADDR cuSeqlensKv;
    GM_ADDR prefixLen;
    GM_ADDR dQ;
    GM_ADDR dK;
    GM_ADDR dV;
    GM_ADDR workspace;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_GM_H_
