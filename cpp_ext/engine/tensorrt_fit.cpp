#include "engine/tensorrt_fit.h"

#include <algorithm>

#include "engine/library.h"
#include "src/error.h"

namespace awase::engine {
namespace {

// A GPU is busy with so many samples, and there is memory for the largest batch.
constexpr int64_t kLargest = 256;

[[noreturn]] void unfit(const std::string &message) { throw Error(AWASE_UNAVAILABLE, message); }

std::string anew(const Engine &engine) { return "; " + export_again(engine.precision) + " builds it anew"; }

}  // namespace

std::string export_again(const std::string &precision) {
  return "`python -m export RUN --trt" + (precision == "fp32" ? "" : " --precision " + precision) + "`";
}

void check_fresh(const std::string &path, const Engine &engine, const Variant &variant) {
  if (engine.onnx_sha256 != variant.file.sha256)
    unfit(path + " is stale: built from another " + variant.file.name + " (SHA-256 " +
          engine.onnx_sha256.substr(0, 12) + "..., the bundle's has " + variant.file.sha256.substr(0, 12) + "...)" +
          anew(engine));
}

void check_flavour(const std::string &path, const Engine &engine, const std::string &flavour) {
  if (engine.flavour != flavour)
    unfit(path + " is for " + engine.flavour + ", and this awase was built with the headers of " + flavour +
          ": build it with those of " + engine.flavour + " (CMake's -DTENSORRT_ROOT=...)");
}

void check_version(const std::string &path, const Engine &engine, const std::string &version) {
  if (engine.version != version)
    unfit(path + " was built by " + engine.flavour + " " + one_line(engine.version) + ", here is " + version +
          ", and engines run on their own version alone" + anew(engine));
}

void check_gpu(const std::string &path, const Engine &engine, int32_t number, const std::string &capability) {
  const auto &known = engine.capabilities;
  if (known.empty() || std::find(known.begin(), known.end(), capability) != known.end()) return;
  std::string all;
  for (const std::string &each : known) all += (all.empty() ? "" : ", ") + each;
  std::string command = export_again(engine.precision);
  if (engine.flavour == "tensorrt-rtx") command.insert(command.size() - 1, " --sm " + capability.substr(2));
  unfit(path + " is for " + one_line(all) + ", and GPU " + std::to_string(number) + " is " + capability + "; " +
        command + (engine.flavour == "tensorrt-rtx" ? "" : " on this machine") + " builds one for it");
}

std::vector<int64_t> batch_sizes(const std::string &path, const Engine &engine, const std::vector<Port> &inputs) {
  bool fits = engine.profile.size() == inputs.size();
  int64_t smallest = 0, best = 0, largest = 0;
  for (const Port &port : inputs) {
    const auto found = engine.profile.find(port.name);
    if (!fits || found == engine.profile.end()) {
      fits = false;
      break;
    }
    for (const std::vector<int64_t> &shape : found->second)
      fits &= shape.size() == port.shape.size() + 1 && std::equal(port.shape.begin(), port.shape.end(), &shape[1]);
    if (!fits) break;
    const int64_t ends[] = {found->second[0][0], found->second[1][0], found->second[2][0]};
    fits &= ends[0] <= ends[1] && ends[1] <= ends[2] && ends[2] <= int64_t(1) << 31;
    if (&port != &inputs.front()) fits &= ends[0] == smallest && ends[1] == best && ends[2] == largest;
    smallest = ends[0], best = ends[1], largest = ends[2];
  }
  if (!fits) unfit(path + ": its profile does not fit the graph's inputs" + anew(engine));
  largest = std::min(largest, std::max(best, kLargest));
  std::vector<int64_t> sizes{smallest};
  for (int64_t power = 1; power < largest; power *= 2)
    if (power > smallest) sizes.push_back(power);
  if (largest > smallest) sizes.push_back(largest);
  return sizes;
}

}  // namespace awase::engine
