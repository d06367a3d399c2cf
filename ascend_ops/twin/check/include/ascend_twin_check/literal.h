// The fast twin's API under another name: ascend_twin_literal::Add and so on. Check mode's calls
// look, and then let these do the work, so that the numbers of both modes are the same.
#ifndef ASCEND_TWIN_CHECK_LITERAL_H_
#define ASCEND_TWIN_CHECK_LITERAL_H_

#define AscendC ascend_twin_literal
#include "ascend_twin/copy.h"
#include "ascend_twin/core.h"
#include "ascend_twin/cube.h"
#include "ascend_twin/dtypes.h"
#include "ascend_twin/params.h"
#include "ascend_twin/reduce.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/vector.h"
#undef AscendC

namespace AscendC {

using ascend_twin_literal::CFG_NZ;
using ascend_twin_literal::CFG_ROW_MAJOR;
using ascend_twin_literal::CO2Layout;
using ascend_twin_literal::FixpipeConfig;
using ascend_twin_literal::GetBlockIdx;
using ascend_twin_literal::GetBlockNum;
using ascend_twin_literal::GetSubBlockIdx;
using ascend_twin_literal::HardEvent;
using ascend_twin_literal::ReduceOrder;
using ascend_twin_literal::ReduceType;
using ascend_twin_literal::RoundMode;
using ascend_twin_literal::TPosition;

}  // namespace AscendC

namespace ascend_twin {
namespace check {

namespace literal = ::ascend_twin_literal;
using ascend_twin::kBlockBytes;
using ascend_twin::kFractalBytes;
using AscendC::HardEvent;
using AscendC::RoundMode;
using AscendC::TPosition;

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_LITERAL_H_
