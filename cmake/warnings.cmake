# glm2_warnings: for host, twin and bindings. Kernels go without -Wconversion: the API's parameter
# fields are narrow by design, and their ranges are a check of their own.
add_library(glm2_warnings INTERFACE)
target_compile_options(glm2_warnings INTERFACE -Wall -Wextra -Wconversion)
add_library(glm2_kernel_warnings INTERFACE)
target_compile_options(glm2_kernel_warnings INTERFACE -Wall -Wextra)
if(GLM2_WERROR)
  target_compile_options(glm2_warnings INTERFACE -Werror)
  target_compile_options(glm2_kernel_warnings INTERFACE -Werror)
endif()
