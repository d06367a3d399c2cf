# GLM2_NPU: finds the CANN toolkit and its CMake functions for operator packages, or says what was
# looked for, where, and what to do. Included before project(): no compiler is needed for that.
set(GLM2_CANN_MODULES compiler/tikcpp/ascendc_kernel_cmake)

set(GLM2_CANN_HOME "")
set(looked "")
function(glm2_try_cann name folder)
  if(GLM2_CANN_HOME)
    return()
  endif()
  if(NOT folder)
    set(found "not set")
  elseif(NOT IS_DIRECTORY "${folder}")
    set(found "${folder}: no such folder")
  else()
    set(found "${folder}")
    set(GLM2_CANN_HOME "${folder}" PARENT_SCOPE)
  endif()
  set(looked "${looked}\n    ${name}: ${found}" PARENT_SCOPE)
endfunction()
glm2_try_cann("-DASCEND_CANN_PACKAGE_PATH" "${ASCEND_CANN_PACKAGE_PATH}")
glm2_try_cann("environment ASCEND_HOME_PATH" "$ENV{ASCEND_HOME_PATH}")
glm2_try_cann("environment ASCEND_TOOLKIT_HOME" "$ENV{ASCEND_TOOLKIT_HOME}")
foreach(prefix "$ENV{HOME}/Ascend" /usr/local/Ascend)
  glm2_try_cann("usual place" "${prefix}/cann")
  glm2_try_cann("usual place" "${prefix}/ascend-toolkit/latest")
endforeach()

if(NOT GLM2_CANN_HOME)
  message(FATAL_ERROR
    "CANN was not found, and the operators are built for an NPU with its compiler. Looked at:"
    "${looked}\n"
    "Install the CANN toolkit (8.2 to 9.1) and source its set_env.sh, then configure again; or use "
    "preset dev, which builds the same kernels for a CPU. docs/npu.md has the steps.\n")
endif()
if(NOT EXISTS "${GLM2_CANN_HOME}/${GLM2_CANN_MODULES}/asc-config.cmake")
  message(FATAL_ERROR
    "CANN was found in ${GLM2_CANN_HOME}, but it has no ${GLM2_CANN_MODULES}/asc-config.cmake: the "
    "CMake functions for operator packages came with CANN 9. With an older toolkit, lay the "
    "sources out for a project of msopgen instead:\n"
    "    cmake -DOUT=build/opp_sources -DCANN_8=ON -P cmake/flat_sources.cmake\n"
    "docs/npu.md has the steps that follow.\n")
endif()
message(STATUS "CANN: ${GLM2_CANN_HOME}")
set(ASCEND_CANN_PACKAGE_PATH "${GLM2_CANN_HOME}" CACHE PATH "The CANN toolkit" FORCE)
if(NOT IS_DIRECTORY "$ENV{ASCEND_HOME_PATH}")  # the toolkit's own CMake files ask for it
  set(ENV{ASCEND_HOME_PATH} "${GLM2_CANN_HOME}")
endif()
