// The AIC side of the gradient: five products a task, tile by tile, through the GM workspace.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
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

// Every tile lies in L1 as NZ matrices of 16 rows, one after the other: fractal c of row block r is
// number r * (width / columns of a fractal) + c. The same tile then serves as left or right
// operand, turned or not, for LoadDataWithTranspose of float finds the two fractals of a 16 x 16
// square side by side.
template <typename T>
class FlashAttentionGradCube {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace) {
        tiling_ = tiling;
        dO_.SetGlobalBuffer((__gm__ T*)gm.dO);
        q_.SetGlobalBuffer((__gm__ T*)gm.q);
        k_.SetGlobalBuffer((__gm__ T*)gm.k);
        v_.SetGlobalBuffer((__gm__ T*)gm.v);
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        dProbs_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDp));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        dScores_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceDs));
        dVPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDvPart));
        dKPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDkPart));
        dQPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDqPart));

        const uint32_t qElems = tiling->blockM * tiling->headDim;
        const uint32_t kvElems = tiling->blockN * tiling->headDim;
        const uint32_t squareElems = tiling->blockM * tiling->blockN;
        kOneL1_ = TakeL1(kvElems);
        vOneL1_ = TakeL1(kvElems);
        qOneL1_ = TakeL1(qElems);
        dOOneL1_ = TakeL1(qElems);
        // With one task in flight stage two finds the tiles of stage one in place.
        shared_ = tiling->taskSlots == 1;
        kTwoL1_ = shared_ ? kOneL1_ : TakeL1(kvElems);
        qTwoL1_ = shared_ ? qOneL1_ : TakeL1(qElems);
        dOTwoL1_ = shared_ ? dOOneL1_ : TakeL1(qElems);
        probsL1_ = TakeL1(squareElems);
        dScoresL1_ = TakeL1(squareElems);

        using AscendC::LocalTensor;
        using AscendC::TPosition;
        const uint32_t rows = MaxOf(tiling->blockM, tiling->blockN);
        const uint32_t aElems = rows * tiling->l0BlockK;
        const uint32_t bElems = tiling->l0BlockN * tiling->l0BlockK;
        const uint32_t cElems = rows * tiling->l0BlockN;
        for (uint32_t i = 0; i < 2; ++i) {
            const uint32_t aBytes = aElems * static_cast<uint32_t>(sizeof(T));
            const uint32_t bBytes = bElems * static_cast<uint32_t>(sizeof(T));
            const uint32_t cBytes = cElems * static_cast<uint32_t>(sizeof(float));
            l0a_[i] = LocalTensor<T>(TPosition::A2, i * aBytes, aElems);
            l0b_[i] = LocalTensor<T>(TPosition::B2, i * bBytes, bElems);
            l0c_[i] = LocalTensor<float>(TPosition::CO1, i * cBytes, cElems);
        }
    }

    // Hands every buffer to the pipe that fills it.
    __aicore__ inline void Begin() {
        for (int32_t event = 0; event < kL1Events; ++event) {
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(event);
        }
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::SetFlag<AscendC::HardEvent::M_MTE1>(i);
            AscendC::SetFlag<AscendC::HardEvent::FIX_M>(i);
        }
    }

    // Takes back what Begin and the last tasks handed out, so that no flag outlives the kernel.
    __aicore__ inline void End() {
        for (int32_t event = 0; event < kL1Events; ++event) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(event);
        }
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::WaitFlag<AscendC::HardEvent::M_MTE1>(i);
            AscendC::WaitFlag<AscendC::HardEvent::FIX_M>(i);
        }
    }

    // C1: S = Q K^T and dP = dO V^T, (rows, kvRows), to the task's slots, row pitch = kvRows
    // rounded up to 64.
    __aicore__ inline void StageOne(const GradTask& task) {
        if (task.rows > 0) {
            if (task.firstOfKv) {
                AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKvOne);
                CopyInKv(kOneL1_, k_, task);
                CopyInKv(vOneL1_, v_, task);
                AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKvOne);
                AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKvOne);
            }
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQOne);
            CopyInQ(qOneL1_, q_, task);
            CopyInQ(dOOneL1_, dO_, task);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQOne);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQOne);
            const uint32_t d = tiling_->headDim;
            const uint32_t pitch = AlignUp(task.kvRows, kFloatsPerRepeat);
            const uint64_t slot =
                task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
            Multiply<false, false>(scores_[slot], pitch, {qOneL1_, d, task.rows},
                                   {kOneL1_, d, task.kvRows}, d);
            Multiply<false, false>(dProbs_[slot], pitch, {dOOneL1_, d, task.rows},
                                   {vOneL1_, d, task.kvRows}, d);
            if (!shared_) ReleaseStageOne(task);
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kGradFlagScores);
    }

    // C2: P^T dO and dS^T Q, (kvRows, headDim), and dS K, (rows, headDim), to the task's slots.
    __aicore__ inline void StageTwo(const GradTask& task) {
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagProbs);
        if (task.rows > 0) {
            if (task.firstOfKv && !shared_) {
                AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKTwo);
                CopyInKv(kTwoL1_, k_, task);
                AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKTwo);
                AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKTwo);
            }
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQTwo);
            if (!shared_) {
                CopyInQ(qTwoL1_, q_, task);
                CopyInQ(dOTwoL1_, dO_, task);
            }
            CopyInSquare(probsL1_, probs_, task);
            CopyInSquare(dScoresL1_, dScores_, task);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQTwo);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQTwo);
            const uint32_t d = tiling_->headDim;
            const uint32_t width = AlignUp(task.kvRows, kFractalRows);
            const uint64_t kvSlot = task.index % tiling_->taskSlots * (tiling_->blockN * d);
            const uint64_t qSlot = task.index % tiling_->taskSlots * (tiling_->blockM * d);
            Multiply<true, true>(dVPart_[kvSlot], d, {probsL1_, width, task.kvRows},
                                 {dOTwoL1_, d, d}, task.rows);
            Multiply<true, true>(dKPart_[kvSlot], d, {dScoresL1_, width, task.kvRows},
                                 {qTwoL1_, d, d}, task.rows);
            Multiply<false, true>(dQPart_[qSlot], d, {dScoresL1_, width, task.rows},
                                  {kTwoL1_, d, d}, task.kvRows);
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQTwo);
            if (shared_) {
                ReleaseStageOne(task);
            } else if (task.lastOfKv) {
                AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKTwo);
            }
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kGradFlagParts);
    }

  private:
    static constexpr uint32_t kC0 = kBlockBytes / sizeof(T);  // columns of a fractal
    static constexpr uint32_t kFractalElems = kFractalBytes / sizeof(T);
    static constexpr bool kFloat = IsSame<T, float>::kValue;
    static constexpr uint32_t kMaxStride = 65535;  // of Nd2NzParams, elements
    // MTE2 <-> MTE1 event ids, of the tiles of each stage.
    static constexpr int32_t kEventKvOne = 0;
    static constexpr int32_t kEventQOne = 1;
    static constexpr int32_t kEventKTwo = 2;
    static constexpr int32_t kEventQTwo = 3;
    static constexpr int32_t kL1Events = 4;

    // An operand in L1: a tile, its columns, and its extent along the product's rows or columns.
    struct Operand {
        AscendC::LocalTensor<T> tile;
        uint32_t width;
        uint32_t extent;
    };

    __aicore__ inline AscendC::LocalTensor<T> TakeL1(uint32_t elems) {
        const uint32_t address = l1Bytes_;
        l1Bytes_ += elems * static_cast<uint32_t>(sizeof(T));
        return AscendC::LocalTensor<T>(AscendC::TPosition::A1, address, elems);
    }

    // Hands the tiles of stage one back to MTE2.
    __aicore__ inline void ReleaseStageOne(const GradTask& task) {
        AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQOne);
        if (task.lastOfKv) AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKvOne);
    }

    // GM k or v [kvStart : kvStart + kvRows] of one group -> L1
    __aicore__ inline void CopyInKv(const AscendC::LocalTensor<T>& dst,
                                    const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint32_t d = tiling_->headDim;
        const uint32_t pitch = tiling_->numKvHeads * d;
        const uint64_t token = static_cast<uint64_t>(task.item.kvToken) + task.kvStart;
        CopyInRows(dst, src[token * pitch + task.item.group * d], task.kvRows, d, d, pitch);
    }

    // GM P or dS (rows, kvRows) of the task's slot -> L1
    __aicore__ inline void CopyInSquare(const AscendC::LocalTensor<T>& dst,
                                        const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
        CopyInRows(dst, src[slot], task.rows, task.kvRows, AlignUp(task.kvRows, kFractalRows),
                   AlignUp(task.kvRows, kFloatsPerRepeat));
    }

    // GM q or do, the rows (token x head of one group) of the Q tile -> L1
    __aicore__ inline void CopyInQ(const AscendC::LocalTensor<T>& dst,
                                   const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint32_t d = tiling_->headDim;
        const uint32_t heads = tiling_->groupSize;
        const uint32_t pitch = tiling_->numHeads * d;
        const uint32_t firstRow = task.tile * tiling_->blockM;
        const uint64_t start =
            static_cast<uint64_t>(task.item.qToken) * pitch + task.item.group * heads * d;
        if (heads == 1 || heads == tiling_->numHeads) {
            const uint32_t rowPitch = heads == 1 ? pitch : d;
            CopyInRows(dst, src[start + static_cast<uint64_t>(firstRow) * rowPitch], task.rows, d,
                       d, rowPitch);
            return;
        }
        AscendC::Nd2NzParams params = RowParams(d, d, d);
        params.srcNdMatrixStride = pitch;
        params.dstNzMatrixStride = heads * kC0;
        for (uint32_t row = 0; row < task.rows;) {
            // The rest of a token, whole tokens, or the beginning of one, inside 16 rows.
            const uint32_t head = (firstRow + row) % heads;
            const uint64_t token = (firstRow + row) / heads;
            const uint32_t inBlock = row % kFractalRows;
            const uint32_t room = MinOf(kFractalRows - inBlock, task.rows - row);
            const bool whole = head == 0 && room >= heads;
            params.ndNum = whole ? room / heads : 1;
            params.nValue = whole ? heads : MinOf(heads - head, room);
            AscendC::DataCopy(dst[(row - inBlock) * d + inBlock * kC0],
                              src[start + token * pitch + head * d], params);
            row += params.ndNum * params.nValue;
        }
    }

    __aicore__ inline AscendC::Nd2NzParams RowParams(uint32_t cols, uint32_t width,
                                                     uint32_t pitch) {
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.nValue = kFractalRows;
        params.dValue = cols;
        params.srcNdMatrixStride = 0;
        params.srcDValue = pitch;
        params.dstNzC0Stride = kFractalRows;
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = kFractalRows * width;
        return params;
    }

    // GM (rows, cols) of one row pitch -> L1, 16 rows after 16 rows.
    __aicore__ inline void CopyInRows(const AscendC::LocalTensor<T>& dst,
                                      const AscendC::GlobalTensor<T>& src, uint32_t rows,
                                      uint32_t cols, uint32_t width, uint32_t pitch) {
        AscendC::Nd2NzParams params = RowParams(cols, width, pitch);
        const uint32_t whole = rows / kFractalRows;
        const uint32_t stride = kFractalRows * pitch;
        if (stride <= kMaxStride && whole > 0) {
            params.ndNum = whole;
            params.srcNdMatrixStride = stride;
            AscendC::DataCopy(dst, src, params);
            params.ndNum = 1;
            params.srcNdMatrixStride = 0;
        } else {
            for (uint32_t block = 0; block < whole; ++block) {
                AscendC::DataCopy(dst[block * kFractalRows * width],
                                  src[static_cast<uint64_t>(block) * stride], params);
            }
        }
        params.nValue = rows % kFractalRows;
        if (params.nValue > 0) {
            AscendC::DataCopy(dst[whole * kFractalRows * width],
                              src[static_cast<uint64_t>(whole) * stride], params);
        }
    }

    // GM dst (a.extent, b.extent) = A B over `depth`. kTurnA: A's tile holds A^T, (depth, extent).
    // kTurnB: B's tile holds B, (depth, extent), and else B^T, for the cube takes B by columns.
    template <bool kTurnA, bool kTurnB>
    __aicore__ inline void Multiply(const AscendC::GlobalTensor<float>& dst, uint32_t pitch,
                                    const Operand& a, const Operand& b, uint32_t depth) {
        for (uint32_t n = 0; n < b.extent; n += tiling_->l0BlockN) {
            const uint32_t cols = MinOf(tiling_->l0BlockN, b.extent - n);
            AscendC::WaitFlag<AscendC::HardEvent::FIX_M>(l0cBuffer_);
            for (uint32_t k = 0; k < depth;) {
                const uint32_t step = DepthOfStep<kTurnA>(depth - k);
                AscendC::WaitFlag<AscendC::HardEvent::M_MTE1>(l0Buffer_);
                if constexpr (kTurnA) {
                    LoadATurned(a, k, step);
                } else {
                    LoadA(a, k, step);
                }
                if constexpr (kTurnB) {
                    LoadBTurned(b, n, cols, k, step);
                } else {
                    LoadB(b, n, cols, k, step);
                }
                MultiplyStep(a.extent, cols, step, k == 0);
                k += step;
            }
            AscendC::SetFlag<AscendC::HardEvent::M_FIX>(l0cBuffer_);
            CopyOut(dst[n], a.extent, cols, pitch);
        }
    }

    // Depth of the next Mmad. A turned float A arrives in squares of 16, of which the cube's layout
    // has no room for the second half if eight or less of the depth are left: these go alone.
    template <bool kTurnA>
    __aicore__ inline uint32_t DepthOfStep(uint32_t left) {
        const uint32_t depth = MinOf(tiling_->l0BlockK, left);
        const uint32_t odd = depth % kFractalRows;
        const bool split = kTurnA && kFloat && depth > kFractalRows && odd > 0 && odd <= kC0;
        return split ? depth - odd : depth;
    }

    // L1 rows [0, extent), columns [k, k + depth) -> L0A
    __aicore__ inline void LoadA(const Operand& a, uint32_t k, uint32_t depth) {
        const uint32_t depthFractals = CeilDiv(depth, kC0);
        AscendC::LoadData2DParams params;
        params.repeatTimes = depthFractals;
        params.srcStride = 1;
        for (uint32_t r = 0; r < CeilDiv(a.extent, kFractalRows); ++r) {
            const uint32_t source = (r * (a.width / kC0) + k / kC0) * kFractalElems;
            AscendC::LoadData(l0a_[l0Buffer_][r * depthFractals * kFractalElems], a.tile[source],
                              params);
        }
    }

    // L1 rows [k, k + depth), columns [0, extent) -> L0A as (extent, depth)
    __aicore__ inline void LoadATurned(const Operand& a, uint32_t k, uint32_t depth) {
        const uint32_t rowFractals = CeilDiv(a.extent, kFractalRows);
        const uint32_t depthFractals = CeilDiv(depth, kC0);
        for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
            const uint32_t source = (k / kFractalRows + r) * kFractalRows * a.width;
            if constexpr (kFloat) {
                AscendC::LoadData2dTransposeParams params;
                params.repeatTimes = rowFractals;
                params.srcStride = 1;
                params.dstGap = depthFractals - 1;
                // A depth of eight or less: the second halves go behind the operand, unused.
                params.dstFracGap = depthFractals == 1 ? rowFractals - 1 : 0;
                AscendC::LoadDataWithTranspose(l0a_[l0Buffer_][2 * r * kFractalElems],
                                               a.tile[source], params);
            } else {
                AscendC::LoadData2DParams params;
                params.repeatTimes = rowFractals;
                params.srcStride = 1;
                params.dstGap = depthFractals - 1;
                params.ifTranspose = true;
                AscendC::LoadData(l0a_[l0Buffer_][r * kFractalElems], a.tile[source], params);
            }
        }
    }

    // L1 rows [n, n + cols), columns [k, k + depth) -> L0B as (depth, cols)
    __aicore__ inline void LoadB(const Operand& b, uint32_t n, uint32_t cols, uint32_t k,
                                 uint32_t depth) {
        const uint32_t colFractals = CeilDiv(cols, kFractalRows);
        AscendC::LoadData2DParams params;
        params.repeatTimes = colFractals;
        params.srcStride = b.width / kC0;
        for (uint32_t c = 0; c < CeilDiv(depth, kC0); ++c) {
            const uint32_t source = n * b.width + (k / kC0 + c) * kFractalElems;
            AscendC::LoadData(l0b_[l0Buffer_][c * colFractals * kFractalElems], b.tile[source],
                              params);
        }
    }

    // L1 rows [k, k + depth), columns [n, n + cols) -> L0B as (depth, cols)
    __aicore__ inline void LoadBTurned(const Operand& b, uint32_t n, uint32_t cols, uint32_t k,
                                       uint32_t depth) {
        const uint32_t colFractals = cols / kFractalRows;
        for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
            const uint32_t source = (k + r * kFractalRows) * b.width + n * kFractalRows;
            if constexpr (kFloat) {
                AscendC::LoadData2dTransposeParams params;
                params.repeatTimes = colFractals;
                params.srcStride = 1;
                params.dstGap = 0;
                params.dstFracGap = colFractals - 1;
                AscendC::LoadDataWithTranspose(l0b_[l0Buffer_][2 * r * colFractals * kFractalElems],
                                               b.tile[source], params);
            } else {
                AscendC::LoadData2DParams params;
                params.repeatTimes = colFractals;
                params.srcStride = 1;
                params.ifTranspose = true;
                AscendC::LoadData(l0b_[l0Buffer_][r * colFractals * kFractalElems], b.tile[source],
                                  params);
            }
        }
    }

    // l0c (rows, cols) (+)= l0a (rows, depth) l0b (depth, cols), then on to the other L0 buffers.
    __aicore__ inline void MultiplyStep(uint32_t rows, uint32_t cols, uint32_t depth, bool fresh) {
        AscendC::SetFlag<AscendC::HardEvent::MTE1_M>(l0Buffer_);
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_M>(l0Buffer_);
        AscendC::MmadParams params;
        params.m = MaxOf(2u, rows);  // m = 1 would mean a vector times a matrix, laid out otherwise
        params.n = cols;
        params.k = depth;
        params.cmatrixInitVal = fresh;
        AscendC::Mmad(l0c_[l0cBuffer_], l0a_[l0Buffer_], l0b_[l0Buffer_], params);
        // Small products that accumulate into one another need a barrier of their own; only whole
        // fractals count.
        if ((rows / kFractalRows) * (cols / kFractalRows) < 10) {
            AscendC::PipeBarrier<PIPE_M>();
        }
        AscendC::SetFlag<AscendC::HardEvent::M_MTE1>(l0Buffer_);
        l0Buffer_ ^= 1;
    }

    // L0C (rows, cols) -> GM, then on to the other L0C buffer.
    __aicore__ inline void CopyOut(const AscendC::GlobalTensor<float>& dst, uint32_t rows,
                                   uint32_t cols, uint32_t pitch) {
        AscendC::WaitFlag<AscendC::HardEvent::M_FIX>(l0cBuffer_);
        AscendC::FixpipeParamsV220 params;
        params.nSize = AlignUp(cols, kFractalRows);
        params.mSize = rows;
        params.srcStride = AlignUp(MaxOf(2u, rows), kFractalRows);
        params.dstStride = pitch;
        params.ndNum = 1;
        params.srcNdStride = 0;
        params.dstNdStride = 0;
        AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(dst, l0c_[l0cBuffer_], params);
        AscendC::SetFlag<AscendC::HardEvent::FIX_M>(l0cBuffer_);
        l0cBuffer_ ^= 1;
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<T> dO_;
    AscendC::GlobalTensor<T> q_;
    AscendC::GlobalTensor<T> k_;
    AscendC::GlobalTensor<T> v_;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<float> dProbs_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<T> dScores_;
    AscendC::GlobalTensor<float> dVPart_;
    AscendC::GlobalTensor<float> dKPart_;
    AscendC::GlobalTensor<float> dQPart_;
    // Tiles of stage one, and of stage two, which works two tasks behind.
    AscendC::LocalTensor<T> kOneL1_;     // (blockN, headDim)
    AscendC::LocalTensor<T> vOneL1_;     // the same
    AscendC::LocalTensor<T> qOneL1_;     // (blockM, headDim)
    AscendC::LocalTensor<T> dOOneL1_;    // the same
    AscendC::LocalTensor<T> kTwoL1_;     // (blockN, headDim)
    AscendC::LocalTensor<T> qTwoL1_;     // (blockM, headDim)
    AscendC::LocalTensor<T> dOTwoL1_;    // the same
    AscendC::LocalTensor<T> probsL1_;    // (blockM, blockN)
    AscendC::LocalTensor<T> dScoresL1_;  // the same
    AscendC::LocalTensor<T> l0a_[2];
    AscendC::LocalTensor<T> l0b_[2];
    AscendC::LocalTensor<float> l0c_[2];
    uint32_t l1Bytes_ = 0;
    bool shared_ = false;
    int32_t l0Buffer_ = 0;
    int32_t l0cBuffer_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_
