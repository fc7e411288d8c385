# TensorRT's C++ headers (or TensorRT-RTX's: they have the same names) and CUDA's runtime as the target
# `tensorrt_headers`; there is none where one of the two is missing. TensorRT's library is opened when a program runs.
# Looked for in TENSORRT_ROOT (an SDK, or a folder with its headers), then on the compiler's paths (CPATH).

set(AWASE_TENSORRT "auto" CACHE STRING "Bundles' TensorRT engines: auto (where its headers and CUDA's are), on, off")
set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "The SDK of TensorRT or TensorRT-RTX")
set(AWASE_CUDART "CUDA::cudart_static" CACHE STRING "CUDA's runtime to link the engine with (a stand-in, for tests)")

if(NOT AWASE_TENSORRT STREQUAL "off" AND NOT TARGET tensorrt_headers)
  if(NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInfer.h")
    unset(TENSORRT_INCLUDE_DIR CACHE)
  endif()
  find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS "${TENSORRT_ROOT}" ENV CPATH PATH_SUFFIXES include)
  if(TENSORRT_INCLUDE_DIR)
    find_package(CUDAToolkit QUIET)
  endif()
  if(TENSORRT_INCLUDE_DIR AND CUDAToolkit_FOUND)
    add_library(tensorrt_headers INTERFACE)
    target_include_directories(tensorrt_headers SYSTEM INTERFACE "${TENSORRT_INCLUDE_DIR}" ${CUDAToolkit_INCLUDE_DIRS})
    target_link_libraries(tensorrt_headers INTERFACE ${AWASE_CUDART})
    message(STATUS "awase: TensorRT's headers in ${TENSORRT_INCLUDE_DIR}")
  elseif(AWASE_TENSORRT STREQUAL "on")
    message(FATAL_ERROR "AWASE_TENSORRT is on, which needs the headers of TensorRT or TensorRT-RTX "
      "(-DTENSORRT_ROOT=…) and the CUDA toolkit")
  elseif(TENSORRT_INCLUDE_DIR)
    message(STATUS "awase: no TensorRT: its headers are in ${TENSORRT_INCLUDE_DIR}, the CUDA toolkit is missing")
  elseif(TENSORRT_ROOT)
    message(WARNING "awase: no NvInfer.h in TENSORRT_ROOT, ${TENSORRT_ROOT}")
  endif()
endif()
