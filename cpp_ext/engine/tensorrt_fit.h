// Whether an engine may run here, from what the manifest says of it: all of it asked before TensorRT reads a byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/manifest.h"

namespace awase::engine {

// `path` is the engine's file, to be named in messages. All throw awase::Error.

// It was built from this graph's file as it is.
void check_fresh(const std::string &path, const Engine &engine, const Variant &variant);

// It is for the library whose headers this is built with.
void check_flavour(const std::string &path, const Engine &engine, const std::string &flavour);

// A library of this version is the one that built it.
void check_version(const std::string &path, const Engine &engine, const std::string &version);

// It is for a GPU of this number and generation ("SM89").
void check_gpu(const std::string &path, const Engine &engine, int32_t number, const std::string &capability);

// The batch sizes to run, rising, from its profile: the ends and the powers of two between.
std::vector<int64_t> batch_sizes(const std::string &path, const Engine &engine, const std::vector<Port> &inputs);

// What to type to build it anew.
std::string export_again(const std::string &precision);

}  // namespace awase::engine
