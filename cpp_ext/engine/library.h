// Shared libraries of others, opened when a program runs, and what they say.
#pragma once

#include <string>
#include <vector>

namespace awase::engine {

// Where a library is looked for, the first of these: the option, the environment variable, what the process has loaded,
// the loader's paths, a package of Python beside this library.
struct LibrarySearch {
  std::string what;                // in messages
  const char *option, *variable;
  std::vector<std::string> names;  // file names, the first with the version of its interface
  std::string package, folder;     // of Python, and where it keeps the library, from the folder of all packages
};

// Its handle. `asked`: the option's value, or NULL. Throws awase::Error.
void *open_library(const LibrarySearch &search, const char *asked);

// Where a process uses one library and keeps it: `asked`, if not NULL, must be the one that is `opened`.
void same_library(const LibrarySearch &search, const char *asked, void *opened);

// A library's message, which may quote a damaged file, as one line of plain characters.
std::string one_line(std::string text);

}  // namespace awase::engine
