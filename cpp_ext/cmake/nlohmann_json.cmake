# nlohmann_json as the target `nlohmann_json::nlohmann_json`: an installed one, or the headers in the Python package
# `nlohmann-json` of the Python that builds (pip puts it there). There is none where neither is.

find_package(nlohmann_json 3.10 CONFIG QUIET)
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(Python 3.11 QUIET COMPONENTS Interpreter)
  if(Python_Interpreter_FOUND)
    execute_process(COMMAND "${Python_EXECUTABLE}" -c 
      "from importlib.util import find_spec; print(find_spec('nlohmann_json').submodule_search_locations[0])"
      OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE folder ERROR_QUIET)
  endif()
  if(NOT EXISTS "${NLOHMANN_JSON_INCLUDE_DIR}/nlohmann/json.hpp")  # pip's environment of an earlier build is gone
    unset(NLOHMANN_JSON_INCLUDE_DIR CACHE)
  endif()
  find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp HINTS "${folder}/include")
  if(NLOHMANN_JSON_INCLUDE_DIR)
    add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
    set_target_properties(nlohmann_json::nlohmann_json PROPERTIES
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${NLOHMANN_JSON_INCLUDE_DIR}"
      INTERFACE_INCLUDE_DIRECTORIES "${NLOHMANN_JSON_INCLUDE_DIR}")
  endif()
endif()
