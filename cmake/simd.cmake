# glm2_simd: the instruction set. The host's best, or x86-64-v3 with GLM2_PORTABLE.
add_library(glm2_simd INTERFACE)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  if(GLM2_PORTABLE)
    target_compile_options(glm2_simd INTERFACE -march=x86-64-v3)
  else()
    target_compile_options(glm2_simd INTERFACE -march=native)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND NOT CMAKE_CROSSCOMPILING AND NOT GLM2_PORTABLE)
  target_compile_options(glm2_simd INTERFACE -mcpu=native)
endif()
# Loops over tiles vectorise only where the compiler may assume that no one reads errno or traps.
target_compile_options(glm2_simd INTERFACE $<$<NOT:$<CONFIG:Debug>>:-O3> -fno-math-errno -fno-trapping-math -ffp-contract=fast)
