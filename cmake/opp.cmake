# The OPP package for NPUs, with the npu_op_* functions of CANN 9: aclnn calls, tiling and prototype
# libraries, kernel binaries. `cmake --build build/npu --target binary package` makes a
# custom_opp_*.run. Untested: nobody here has the toolkit.
include(cmake/operators.cmake)
enable_language(C)  # the toolkit asks for the C compiler's version
find_package(ASC REQUIRED HINTS "${ASCEND_CANN_PACKAGE_PATH}/${GLM2_CANN_MODULES}")

set(ops ${CMAKE_CURRENT_SOURCE_DIR}/ascend_ops)
set(includes ${ops} ${ops}/include)
set(hosts "")
foreach(operator IN LISTS GLM2_OPERATORS)
  list(APPEND hosts ${ops}/${operator}/op_host/${operator}_def.cpp
    ${ops}/${operator}/op_host/${operator}_tiling.cpp)
endforeach()

# Kernels are compiled here, for the machines of ASCEND_COMPUTE_UNIT. Their sources stay out: they
# include one another from the root of ascend_ops, which a compilation at run time does not know.
npu_op_package(glm2 TYPE RUN
  CONFIG ENABLE_SOURCE_PACKAGE False ENABLE_BINARY_PACKAGE True INSTALL_PATH ${CMAKE_BINARY_DIR})

list(TRANSFORM includes PREPEND -I OUTPUT_VARIABLE include_options)
npu_op_code_gen(SRC ${hosts} PACKAGE glm2 OUT_DIR ${ASCEND_AUTOGEN_PATH}
  COMPILE_OPTIONS ${include_options})

file(GLOB aclnn ${ASCEND_AUTOGEN_PATH}/aclnn_*.cpp)
file(GLOB fallback ${ASCEND_AUTOGEN_PATH}/fallback_*.cpp)
file(GLOB proto ${ASCEND_AUTOGEN_PATH}/op_proto.cc)
set_source_files_properties(${aclnn} ${fallback} ${proto} PROPERTIES GENERATED TRUE)
npu_op_library(cust_opapi ACLNN ${aclnn})
npu_op_library(cust_op_proto GRAPH ${hosts} ${proto})
npu_op_library(cust_optiling TILING ${hosts} ${fallback})
foreach(library cust_op_proto cust_optiling)
  target_include_directories(${library} PRIVATE ${includes})
endforeach()

# After npu_op_code_gen, whose folder these write to.
npu_op_kernel_options(ascendc_kernels ALL OPTIONS -I${ops})
foreach(operator IN LISTS GLM2_OPERATORS)
  glm2_op_type(${operator} type)
  npu_op_kernel_sources(ascendc_kernels
    OP_TYPE ${type} KERNEL_DIR ${operator}/op_kernel KERNEL_FILE ${operator}.cpp)
endforeach()
npu_op_kernel_library(ascendc_kernels SRC_BASE ${ops} TILING_LIBRARY cust_optiling)
npu_op_package_add(glm2 LIBRARY cust_optiling cust_opapi cust_op_proto ascendc_kernels)
