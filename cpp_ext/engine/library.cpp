#include "engine/library.h"

#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>

#include "src/error.h"

namespace awase::engine {
namespace {

// Where pip puts a library if it puts us into the same folder of packages. Names may go on with a version.
std::string beside_us(const LibrarySearch &search) {
  Dl_info us{};
  if (!dladdr(reinterpret_cast<const void *>(&beside_us), &us) || !us.dli_fname) return "";
  namespace fs = std::filesystem;
  std::error_code none;
  const fs::path folder = fs::path(us.dli_fname).parent_path() / "../.." / search.folder;
  for (const fs::directory_entry &entry : fs::directory_iterator(folder, none))
    if (entry.path().filename().string().rfind(search.names.front(), 0) == 0) return entry.path().string();
  return "";
}

void *open_or_say(const LibrarySearch &search, const char *path, const std::string &given) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = dlerror();
    throw Error(AWASE_UNAVAILABLE,
                given + ": " + search.what + "'s library cannot be opened: " + one_line(reason ? reason : path));
  }
  return handle;
}

}  // namespace

void *open_library(const LibrarySearch &search, const char *asked) {
  if (asked) return open_or_say(search, asked, std::string("option ") + search.option);
  const char *variable = std::getenv(search.variable);
  if (variable && *variable) return open_or_say(search, variable, search.variable);
  for (int loaded : {RTLD_NOLOAD, 0})
    for (const std::string &name : search.names)
      if (void *handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | loaded)) return handle;
  const std::string path = beside_us(search);
  if (!path.empty()) return open_or_say(search, path.c_str(), "the Python package " + search.package);
  throw Error(AWASE_UNAVAILABLE, search.what + "'s library was not found: neither " + search.names.front() +
                                     " on the loader's paths nor the Python package " + search.package +
                                     " beside awase; give its path in " + search.variable);
}

void same_library(const LibrarySearch &search, const char *asked, void *opened) {
  if (!asked) return;
  const std::string option = std::string("option ") + search.option;
  void *again = open_or_say(search, asked, option);
  dlclose(again);
  if (again != opened)
    throw Error(AWASE_INVALID, option + ": got " + asked + ", expected the library that this process uses already");
}

std::string one_line(std::string text) {
  for (char &c : text)
    if (c < ' ' || c > '~') c = ' ';
  return text.substr(0, 400);
}

}  // namespace awase::engine
