// What bundle.json holds, as far as the engine uses it; runtime/bundle.py is its definition.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "awase/engine.h"

namespace awase::engine {

constexpr const char *kManifest = "bundle.json";
constexpr uint64_t kLargestManifest = 1 << 24;  // bytes

using Bounds = std::array<double, 2>;

struct Port {
  std::string name, unit;
  awase_kind kind;
  awase_dtype dtype;
  std::vector<int64_t> shape;  // without the batch axis
  std::vector<std::string> names;
  std::vector<int64_t> parts;  // of a latent: channels of each part, in order
  std::optional<std::vector<Bounds>> limits;
  std::optional<Bounds> range;
  bool operator==(const Port &other) const;
};

// A file of the bundle, and what it must be.
struct File {
  std::string name;
  uint64_t bytes;
  std::string sha256;
};

struct Variant {
  std::string precision;
  File file;
};

struct Graph {
  std::string name;
  std::vector<Port> inputs, outputs;
  std::vector<Variant> variants;
};

// A graph built for GPUs ahead of time.
struct Engine {
  File file;
  std::string graph, precision;
  std::string onnx_sha256;                // of the ONNX file it was built from
  std::string flavour, version;           // "tensorrt" or "tensorrt-rtx", and the library's that built it
  std::vector<std::string> capabilities;  // GPU generations it runs on, e.g. "SM89"; none: not known
  // Smallest, best and largest shape of each input, batch first.
  std::map<std::string, std::array<std::vector<int64_t>, 3>> profile;
};

struct Manifest {
  std::string name;
  std::vector<Graph> graphs;
  std::vector<Engine> engines;
  std::vector<File> files;  // all of them, engines included
};

// Throws awase::Error, whose message starts with `path`.
Manifest read_manifest(const std::string &path, const std::string &text);

}  // namespace awase::engine
