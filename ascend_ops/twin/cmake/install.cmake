# Installs the package ascend_twin: targets ascend_twin::fast and ascend_twin::check.
include(CMakePackageConfigHelpers)

set_target_properties(ascend_twin_common PROPERTIES EXPORT_NAME common)
set_target_properties(ascend_twin_fast PROPERTIES EXPORT_NAME fast)
set_target_properties(ascend_twin_check PROPERTIES EXPORT_NAME check)
# The loops of the headers are compiled with the kernels: with the flags of the library's own.
set_target_properties(glm2_simd PROPERTIES EXPORT_NAME simd)
target_link_libraries(ascend_twin_common INTERFACE $<INSTALL_INTERFACE:ascend_twin::simd>)

install(TARGETS glm2_simd ascend_twin_common ascend_twin_fast ascend_twin_check
  EXPORT ascend_twin ARCHIVE DESTINATION lib)
install(DIRECTORY include/ DESTINATION include/ascend_twin)
install(DIRECTORY check/include/ DESTINATION include/ascend_twin_check)
install(FILES README.md DESTINATION share/doc/ascend_twin)
install(EXPORT ascend_twin NAMESPACE ascend_twin:: FILE ascend_twin-targets.cmake
  DESTINATION lib/cmake/ascend_twin)
configure_package_config_file(cmake/ascend_twin-config.cmake.in ascend_twin-config.cmake
  INSTALL_DESTINATION lib/cmake/ascend_twin)
write_basic_package_version_file(ascend_twin-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ascend_twin-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/ascend_twin-config-version.cmake DESTINATION lib/cmake/ascend_twin)
