# ONNX Runtime's C headers as the target `onnxruntime_headers`; there is none where they cannot be had. Only headers:
# its library is opened when a program runs. Looked for in ONNXRUNTIME_ROOT (an ONNX Runtime SDK), then on the
# compiler's paths (CPATH), then in AWASE_DOWNLOADS, where they are put from an npm package by npm's own client.

set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}" CACHE PATH "ONNX Runtime's SDK, or a folder with its headers")
get_filename_component(build "${CMAKE_CURRENT_LIST_DIR}/../../build" ABSOLUTE)
set(AWASE_DOWNLOADS "${build}" CACHE PATH "Folder that keeps what a build downloads")

function(awase_download_onnxruntime_headers folder)
  find_program(NPM npm)
  if(NOT NPM)
    return()
  endif()
  # Packed apart and then moved: builds at the same time do not see each other's halves.
  string(RANDOM LENGTH 8 unique)
  set(part "${folder}.${unique}")
  file(MAKE_DIRECTORY "${part}")
  message(STATUS "awase: downloading ONNX Runtime's headers (150 MB, once) with npm to ${folder}")
  execute_process(COMMAND "${NPM}" pack --silent com.github.asus4.onnxruntime@0.4.9 WORKING_DIRECTORY "${part}"
    TIMEOUT 900 RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE error)
  file(GLOB package "${part}/*.tgz")
  if(result EQUAL 0 AND package)
    file(ARCHIVE_EXTRACT INPUT "${package}" DESTINATION "${part}"
      PATTERNS "*/ios-arm64/onnxruntime.framework/Headers/*.h")
    file(GLOB_RECURSE header "${part}/*/onnxruntime_c_api.h")
    if(header)
      get_filename_component(headers "${header}" DIRECTORY)
      file(RENAME "${headers}" "${folder}" RESULT moved)  # fails where another build was first: as good
    endif()
  else()
    message(STATUS "awase: npm could not download them: ${error}")
  endif()
  file(REMOVE_RECURSE "${part}")
endfunction()

if(NOT TARGET onnxruntime_headers)
  if(NOT EXISTS "${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_c_api.h")
    unset(ONNXRUNTIME_INCLUDE_DIR CACHE)
  endif()
  set(layouts include include/onnxruntime include/onnxruntime/core/session)
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h HINTS "${ONNXRUNTIME_ROOT}" ENV CPATH
    PATH_SUFFIXES ${layouts} onnxruntime onnxruntime/core/session)
  set(downloaded "${AWASE_DOWNLOADS}/onnxruntime-headers-0.4.9")
  if(NOT ONNXRUNTIME_INCLUDE_DIR AND NOT ONNXRUNTIME_ROOT)
    if(NOT EXISTS "${downloaded}/onnxruntime_c_api.h")
      awase_download_onnxruntime_headers("${downloaded}")
    endif()
    find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h PATHS "${downloaded}" NO_DEFAULT_PATH)
  endif()
  if(ONNXRUNTIME_INCLUDE_DIR)
    add_library(onnxruntime_headers INTERFACE)
    target_include_directories(onnxruntime_headers SYSTEM INTERFACE "${ONNXRUNTIME_INCLUDE_DIR}")
    message(STATUS "awase: ONNX Runtime's headers in ${ONNXRUNTIME_INCLUDE_DIR}")
  elseif(ONNXRUNTIME_ROOT)
    message(WARNING "awase: no onnxruntime_c_api.h in ONNXRUNTIME_ROOT, ${ONNXRUNTIME_ROOT}")
  endif()
endif()
