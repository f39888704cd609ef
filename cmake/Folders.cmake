# One library per folder of src/, one test binary per folder of tests/.

# efedllm_library(<folder> <dependencies>...): src/<folder>/**.cc as the static library efedllm_<folder>.
function(efedllm_library folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  add_library(efedllm_${folder} STATIC ${sources})
  target_include_directories(efedllm_${folder} PUBLIC "${CMAKE_SOURCE_DIR}/src")
  target_link_libraries(efedllm_${folder} PUBLIC ${ARGN})
endfunction()

# efedllm_test(<folder> <libraries>...): tests/<folder>/**_test.cc and helpers as the binary <folder>_test.
# Tests that need the parity pack (../shared beside the checkout) skip, visibly, without it.
function(efedllm_test folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc")
  add_executable(${folder}_test ${sources})
  target_include_directories(${folder}_test PRIVATE "${CMAKE_SOURCE_DIR}/src" "${CMAKE_SOURCE_DIR}/tests")
  target_compile_definitions(${folder}_test PRIVATE EFEDLLM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${folder}_test PRIVATE ${ARGN} GTest::gmock_main)
  gtest_discover_tests(${folder}_test TEST_PREFIX "${folder}/" DISCOVERY_TIMEOUT 120 PROPERTIES TIMEOUT 600)
endfunction()
