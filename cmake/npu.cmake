# GLM2_NPU: finds the CANN toolkit. Compiling the kernels for an NPU and packing them as an OPP
# package is a later step; until then this checks the machine and builds the CPU twin as ever.
set(GLM2_CANN_HOME "")
foreach(variable ASCEND_HOME_PATH ASCEND_TOOLKIT_HOME)
  if(NOT GLM2_CANN_HOME AND IS_DIRECTORY "$ENV{${variable}}")
    set(GLM2_CANN_HOME "$ENV{${variable}}")
  endif()
endforeach()
if(NOT GLM2_CANN_HOME)
  message(FATAL_ERROR
    "CANN was not found: neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME names a folder. "
    "Install the CANN toolkit and source its set_env.sh, or configure without GLM2_NPU "
    "(preset dev) for the CPU.")
endif()
message(WARNING
  "CANN was found in ${GLM2_CANN_HOME}, but this version does not build the OPP package for NPUs "
  "yet: only the CPU twin is built.")
