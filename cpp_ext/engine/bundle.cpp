#include "engine/bundle.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/onnx_file.h"
#include "engine/sha256.h"
#include "src/error.h"

namespace awase::engine {
namespace {

constexpr const char *kAgain = "; copy or export the bundle again";

[[noreturn]] void wrong(const std::string &message) { throw Error(AWASE_INVALID, message); }

std::string in_reason(const std::string &path) { return path + " cannot be read: " + std::strerror(errno); }

class Descriptor {
 public:
  explicit Descriptor(int number) : number(number) {}
  Descriptor(const Descriptor &) = delete;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  const int number;
};

// All of a regular file of at most `most` bytes. `own`: it must not be a link.
std::string read_all(const std::string &path, uint64_t most, bool own) {
  // Without O_NONBLOCK a named pipe would wait for ever.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (own ? O_NOFOLLOW : 0)));
  if (file.number < 0 && errno == ELOOP && own)
    wrong(path + " is a link, expected a file of the bundle itself" + kAgain);
  if (file.number < 0 && (errno == ENOENT || errno == ENOTDIR)) wrong(path + " is missing" + kAgain);
  struct stat about {};
  if (file.number < 0 || fstat(file.number, &about) != 0) wrong(in_reason(path));
  if (!S_ISREG(about.st_mode)) wrong(path + " is no regular file" + kAgain);
  const auto size = uint64_t(about.st_size);
  if (size > most)
    wrong(path + " is too long: " + std::to_string(size) + " bytes, expected at most " + std::to_string(most) + kAgain);
  std::string bytes(size, '\0');
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(file.number, &bytes[done], size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) wrong(in_reason(path));
    if (count == 0) wrong(path + " was truncated while it was read" + kAgain);
    done += size_t(count);
  }
  return bytes;
}

// A file of the bundle that is what the manifest says.
std::string read_verified(const std::string &folder, const File &file) {
  const std::string path = folder + "/" + file.name;
  std::string bytes = read_all(path, file.bytes, true);
  if (bytes.size() != file.bytes)
    wrong(path + " is truncated: " + std::to_string(bytes.size()) + " bytes, " + kManifest + " says " +
          std::to_string(file.bytes) + kAgain);
  const std::string digest = sha256(bytes.data(), bytes.size());
  if (digest != file.sha256)
    wrong(path + " has changed: SHA-256 " + digest.substr(0, 12) + "..., " + kManifest + " says " +
          file.sha256.substr(0, 12) + "..." + kAgain);
  return bytes;
}

// Weights elsewhere would be read by ONNX Runtime, and nothing would have verified them.
void check_complete(const std::string &path, const std::string &bytes) {
  bool elsewhere = false;
  try {
    elsewhere = weights_outside(bytes);
  } catch (const Error &error) {
    if (std::strcmp(error.what(), "no ONNX file") != 0) throw;
    wrong(path + " is no ONNX file; export the bundle again");
  }
  if (elsewhere) wrong(path + " keeps weights in another file, which nothing verifies; export the bundle again");
}

Manifest open_manifest(const std::string &folder) {
  struct stat about {};
  if (stat(folder.c_str(), &about) != 0 || !S_ISDIR(about.st_mode))
    wrong((folder.empty() ? "\"\"" : folder) + " is no folder, expected a bundle's; `python -m export` makes one");
  const std::string path = folder + "/" + kManifest;
  return read_manifest(path, read_all(path, kLargestManifest, false));
}

}  // namespace

// ---- the description ----

const awase_port *Description::describe(const std::vector<Port> &ports) {
  auto &described = ports_.emplace_back();
  for (const Port &port : ports) {
    awase_port view{};
    view.name = port.name.c_str(), view.unit = port.unit.c_str();
    view.kind = port.kind, view.dtype = port.dtype, view.rank = int32_t(port.shape.size());
    for (size_t k = 0; k < port.shape.size(); ++k) view.shape[k] = port.shape[k];
    if (!port.names.empty()) {
      auto &names = texts_.emplace_back();
      for (const std::string &name : port.names) names.push_back(name.c_str());
      view.names = names.data();
    }
    static_assert(sizeof(Bounds) == 2 * sizeof(double), "Bounds are two numbers in a row");
    if (port.limits) view.limits = reinterpret_cast<const double(*)[2]>(port.limits->data());
    if (port.range) view.range = port.range->data();
    view.part_count = int32_t(port.parts.size());
    if (!port.parts.empty()) view.parts = port.parts.data();
    described.push_back(view);
  }
  return described.data();
}

Description::Description(const std::vector<Graph> &graphs) {
  for (const Graph &graph : graphs) {
    auto &precisions = texts_.emplace_back();
    for (const Variant &variant : graph.variants) precisions.push_back(variant.precision.c_str());
    graphs_.push_back({graph.name.c_str(), int32_t(graph.inputs.size()), int32_t(graph.outputs.size()),
                       int32_t(graph.variants.size()), describe(graph.inputs), describe(graph.outputs),
                       precisions.data()});
  }
}

// ---- the bundle ----

Bundle::Bundle(const std::string &folder)
    : folder(folder), manifest(open_manifest(folder)), description(manifest.graphs) {
  for (const Graph &graph : manifest.graphs)
    for (const Variant &variant : graph.variants)
      check_complete(folder + "/" + variant.file.name, read_verified(folder, variant.file));
  for (const Engine &engine : manifest.engines) read_verified(folder, engine.file);
}

const Graph &Bundle::graph(const char *name) const {
  std::string known;
  for (const Graph &graph : manifest.graphs) {
    if (!name || graph.name == name) return graph;
    known += (known.empty() ? "" : ", ") + graph.name;
  }
  wrong(folder + ": no graph " + name + ", only " + known);
}

const Variant &Bundle::variant(const Graph &graph, const char *precision) const {
  const std::string wanted = precision ? precision : "fp32";
  std::string known;
  for (const Variant &variant : graph.variants) {
    if (variant.precision == wanted) return variant;
    known += (known.empty() ? "" : ", ") + variant.precision;
  }
  wrong(folder + ": graph " + graph.name + " is there in " + known + ", not in " + wanted);
}

std::string Bundle::read(const File &file) const { return read_verified(folder, file); }

}  // namespace awase::engine
