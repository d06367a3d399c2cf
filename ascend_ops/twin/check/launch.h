// The fast twin's launch.h, whose Launch check mode implements too. Found before it, so that the
// fast twin's API gets its other name before any of its headers is read.
#ifndef ASCEND_TWIN_CHECK_LAUNCH_H_
#define ASCEND_TWIN_CHECK_LAUNCH_H_

#include "ascend_twin_check/literal.h"
// Not the other way round.
#include "../fast/launch.h"

#endif  // ASCEND_TWIN_CHECK_LAUNCH_H_
