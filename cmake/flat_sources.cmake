# Lays the operators out as a project of msopgen wants them: OUT/op_host and OUT/op_kernel without
# folders, includes by bare names, each kernel named after its operator type.
#
#   cmake -DOUT=build/opp_sources [-DCANN_8=ON] -P cmake/flat_sources.cmake
#
# CANN_8: CANN 8.x, which has the older names of the reductions.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/operators.cmake)

if(NOT OUT)
  message(FATAL_ERROR "name the folder to write: cmake -DOUT=build/opp_sources -P ${CMAKE_SCRIPT_MODE_FILE}")
endif()
get_filename_component(out ${OUT} ABSOLUTE)
get_filename_component(root ${CMAKE_CURRENT_LIST_DIR}/../ascend_ops ABSOLUTE)
if(EXISTS ${out})
  message(FATAL_ERROR "${out} exists; delete it, or name another folder")
endif()

# Copies `source` to `target`, with the folders of our own headers taken off its includes.
function(glm2_flatten source target)
  file(READ ${source} text)
  string(REGEX REPLACE
    "(#include \")(ascend_ops|[a-z_]+/op_host|[a-z_]+/op_kernel)/([a-z_]+\\.h\")" "\\1\\3"
    text "${text}")
  if(CANN_8 AND source MATCHES "/tile_math\\.h$")
    string(REPLACE "#include \"kernel_operator.h\""
      "#define ASCEND_OPS_CANN_8 1\n\n#include \"kernel_operator.h\"" text "${text}")
  endif()
  if(EXISTS ${target})
    message(FATAL_ERROR "two sources want to be ${target}")
  endif()
  file(WRITE ${target} "${text}")
endfunction()

function(glm2_flatten_all folder)
  file(GLOB sources ${ARGN})
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME)
    glm2_flatten(${source} ${out}/${folder}/${name})
  endforeach()
endfunction()

glm2_flatten_all(op_host ${root}/include/ascend_ops/status.h ${root}/include/ascend_ops/types.h
  ${root}/include/ascend_ops/packed_weight.h ${root}/common/op_host/*.h)
glm2_flatten_all(op_kernel ${root}/common/op_kernel/*.h)
foreach(operator IN LISTS GLM2_OPERATORS)
  set(folder ${root}/${operator})
  glm2_flatten_all(op_host ${root}/include/ascend_ops/${operator}.h ${folder}/op_host/*.h
    ${folder}/op_host/*_def.cpp ${folder}/op_host/*_tiling.cpp
    ${folder}/op_kernel/${operator}_tiling_data.h)
  glm2_flatten_all(op_kernel ${folder}/op_kernel/*.h)
  glm2_flatten(${folder}/op_kernel/${operator}.cpp ${out}/op_kernel/glm2_${operator}.cpp)
endforeach()
message(STATUS "${out}/op_host and ${out}/op_kernel are written")
