// Shape and value checks of MindSpore's C ABI. Messages are worded as glm2_ops.checks words them.
#include "aot_common.h"

#include <cstring>

namespace glm2_aot {
namespace {

constexpr int64_t kMaxLength = int64_t{1} << 30;  // positions and windows add up inside int32

std::string Spelled(const char* axes) {
    std::string text = "(";
    for (const char* axis = axes; *axis != '\0'; ++axis) {
        if (axis != axes) text += ", ";
        text += *axis == 'b' ? std::string("B + 1") : std::string(1, *axis);
    }
    return text + ")";
}

std::string Spelled(const int64_t* shape, int rank) {
    std::string text = "(";
    for (int axis = 0; axis < rank; ++axis) {
        if (axis > 0) text += ", ";
        text += shape[axis] == kDynamic ? std::string("?") : std::to_string(shape[axis]);
    }
    return text + ")";
}

[[noreturn]] void RefuseShape(const char* op, const Operand& operand, const int64_t* shape,
                              int rank, const std::string& why) {
    Refuse(op, std::string(operand.name) + " has shape " + Spelled(shape, rank) + "; expected " +
                   Spelled(operand.axes) + why);
}

std::string At(const char* name, uint32_t index, int32_t value) {
    return std::string(name) + "[" + std::to_string(index) + "] is " + std::to_string(value);
}

}  // namespace

void Refuse(const char* op, const std::string& message) {
    throw std::invalid_argument(std::string(op) + ": " + message);
}

ascend_ops::DataType Params::Type(int index) const {
    if (std::strcmp(dtypes[index], "float32") == 0) return ascend_ops::DataType::kFloat32;
    if (std::strcmp(dtypes[index], "float16") == 0) return ascend_ops::DataType::kFloat16;
    if (std::strcmp(dtypes[index], "bfloat16") == 0) return ascend_ops::DataType::kBfloat16;
    throw std::invalid_argument(std::string("an input has dtype ") + dtypes[index] +
                                "; the operators serve float16, bfloat16, float32");
}

void CheckCount(const char* op, int count, int wanted) {
    if (count != wanted) {
        Refuse(op,
               "got " + std::to_string(count) + " parameters; expected " + std::to_string(wanted));
    }
}

Sizes CheckShapes(const char* op, const int* ndims, int64_t** shapes,
                  std::initializer_list<Operand> operands) {
    Sizes sizes;
    int input = 0;
    for (const Operand& operand : operands) {
        const int rank = ndims[input];
        const int64_t* shape = shapes[input++];
        if (rank != static_cast<int>(std::strlen(operand.axes))) {
            RefuseShape(op, operand, shape, rank, "");
        }
        for (int axis = 0; axis < rank; ++axis) {
            const char letter = operand.axes[axis];
            if (shape[axis] == kDynamic) continue;
            if (letter >= '0' && letter <= '9') {
                if (shape[axis] != letter - '0') RefuseShape(op, operand, shape, rank, "");
                continue;
            }
            const char name = letter == 'b' ? 'B' : letter;
            const int64_t size = letter == 'b' ? shape[axis] - 1 : shape[axis];
            if (size < 0) RefuseShape(op, operand, shape, rank, ", and it is empty");
            if (sizes[name] == kDynamic) sizes[name] = size;
            if (sizes[name] != size) {
                RefuseShape(op, operand, shape, rank,
                            " with " + std::string(1, name) + " = " + std::to_string(sizes[name]) +
                                ", as the inputs before it have it");
            }
        }
    }
    return sizes;
}

void CheckHeads(const char* op, const Sizes& sizes) {
    const int64_t heads = sizes['N'];
    const int64_t kvHeads = sizes['G'];
    const int64_t headDim = sizes['D'];
    if (kvHeads != kDynamic && heads != kDynamic &&
        (heads < 1 || kvHeads < 1 || heads % kvHeads != 0)) {
        Refuse(op, "q has " + std::to_string(heads) + " heads and k has " +
                       std::to_string(kvHeads) + "; num_heads must be a multiple of num_kv_heads");
    }
    if (headDim != kDynamic && (headDim % 16 != 0 || headDim < 16 || headDim > 256)) {
        Refuse(op, "head_dim is " + std::to_string(headDim) +
                       "; it must be a multiple of 16 up to 256");
    }
}

void CheckOffsets(const char* op, const char* name, const int32_t* offsets, uint32_t numSeqs,
                  uint32_t numTokens) {
    if (numTokens > kMaxLength) {
        Refuse(op, "there are " + std::to_string(numTokens) + " tokens; at most " +
                       std::to_string(kMaxLength) + ": split the batch");
    }
    if (offsets[0] != 0) Refuse(op, At(name, 0, offsets[0]) + "; it must start at 0");
    for (uint32_t seq = 0; seq < numSeqs; ++seq) {
        if (offsets[seq + 1] < offsets[seq]) {
            Refuse(op, At(name, seq + 1, offsets[seq + 1]) + " after " +
                           std::to_string(offsets[seq]) + "; it must never fall");
        }
    }
    if (static_cast<uint32_t>(offsets[numSeqs]) != numTokens) {
        Refuse(op, std::string(name) + " ends at " + std::to_string(offsets[numSeqs]) +
                       ", but there are " + std::to_string(numTokens) + " tokens; they must agree");
    }
}

std::vector<int32_t> Lengths(const int32_t* offsets, uint32_t numSeqs) {
    std::vector<int32_t> lengths(numSeqs);
    for (uint32_t seq = 0; seq < numSeqs; ++seq) lengths[seq] = offsets[seq + 1] - offsets[seq];
    return lengths;
}

void CheckPrefixes(const char* op, const int32_t* prefixLen, const int32_t* seqLenKv,
                   uint32_t numSeqs) {
    for (uint32_t seq = 0; seq < numSeqs; ++seq) {
        if (prefixLen[seq] < 0 || prefixLen[seq] > seqLenKv[seq]) {
            Refuse(op, At("prefix_len", seq, prefixLen[seq]) + "; expected 0 to " +
                           std::to_string(seqLenKv[seq]) + ", the keys of sequence " +
                           std::to_string(seq));
        }
    }
}

void CheckPages(const char* op, const int32_t* blockTable, const int32_t* seqLenKv,
                uint32_t numSeqs, uint32_t maxPages, uint32_t pageSize, uint32_t numPages) {
    const int64_t room = int64_t{maxPages} * pageSize;
    const int64_t longest = room < kMaxLength ? room : kMaxLength;
    for (uint32_t seq = 0; seq < numSeqs; ++seq) {
        if (seqLenKv[seq] < 0 || seqLenKv[seq] > longest) {
            Refuse(op, At("seq_len_kv", seq, seqLenKv[seq]) + "; expected 0 to " +
                           std::to_string(longest) + ", what " + std::to_string(maxPages) +
                           " pages of " + std::to_string(pageSize) + " in block_table hold");
        }
        const int32_t* pages = blockTable + int64_t{seq} * maxPages;
        const uint32_t used = (static_cast<uint32_t>(seqLenKv[seq]) + pageSize - 1) / pageSize;
        for (uint32_t page = 0; page < used; ++page) {
            if (pages[page] < 0 || static_cast<uint32_t>(pages[page]) >= numPages) {
                Refuse(op, "block_table[" + std::to_string(seq) + ", " + std::to_string(page) +
                               "] is " + std::to_string(pages[page]) + ", but sequence " +
                               std::to_string(seq) + " has " + std::to_string(seqLenKv[seq]) +
                               " tokens and needs that page; expected a page id of 0 to " +
                               std::to_string(int64_t{numPages} - 1));
            }
        }
    }
}

}  // namespace glm2_aot
