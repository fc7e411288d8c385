#include "engine/session.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/check.h"
#include "src/error.h"

namespace awase::engine {
namespace {

constexpr int64_t kMostElements = int64_t(1) << 48;

void kernels(awase_status status) {
  if (status != AWASE_OK) throw Error(status, awase_last_error());
}

std::string list(const std::vector<int64_t> &shape, const std::string &batch) {
  std::string text = "[" + batch;
  for (int64_t size : shape) text += ", " + std::to_string(size);
  return text + "]";
}

int64_t size_of_sample(const Port &port) {
  int64_t count = 1;
  for (int64_t size : port.shape) count *= size;
  return count;
}

bool is_contiguous(const awase_tensor &t) {
  int64_t step = 1;
  for (int k = t.rank - 1; k >= 0; --k) {
    if (t.shape[k] != 1 && t.strides[k] != step) return false;
    step *= t.shape[k];
  }
  return true;
}

// Limits rounded towards the inside: the nearest float32 of a limit can lie just beyond it.
std::vector<std::array<float, 2>> inner_limits(const Port &port) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<std::array<float, 2>> inner;
  if (port.limits)
    for (const Bounds &exact : *port.limits) {
      float low = float(exact[0]), high = float(exact[1]);
      if (low < exact[0]) low = std::nextafter(low, infinity);
      if (high > exact[1]) high = std::nextafter(high, -infinity);
      inner.push_back({low, high});
    }
  return inner;
}

}  // namespace

awase_tensor contiguous(void *data, awase_dtype dtype, const std::vector<int64_t> &shape) {
  awase_tensor t{data, dtype, AWASE_CPU, int32_t(shape.size()), {}, {}};
  int64_t step = 1;
  for (size_t k = shape.size(); k-- > 0;) {
    t.shape[k] = shape[k], t.strides[k] = step;
    step *= shape[k];
  }
  return t;
}

Session::Session(const Bundle &bundle, const awase_session_options &options)
    : what_(bundle.folder + ": graph " + bundle.graph(options.graph).name),
      graphs_{bundle.graph(options.graph)},
      description_(graphs_),
      device_(read_device(options.device)),
      model_(open_model(bundle, graph(), device_, options)) {
  for (const Port &port : graph().outputs) limits_.push_back(inner_limits(port));
}

// Returns the batch.
int64_t Session::check(const char *side, const std::vector<Port> &ports, const awase_tensor *tensors,
                       int32_t count) const {
  if (!tensors || count != int32_t(ports.size()))
    refuse(side, tensors ? std::to_string(count) + " tensors" : "NULL",
           std::to_string(ports.size()) + " tensors, one for each " + side + " of " + what_);
  int64_t batch = 0;
  for (size_t k = 0; k < ports.size(); ++k) {
    const Port &port = ports[k];
    const std::string name = std::string(side) + " " + port.name;
    const std::string layout = list(port.shape, k ? std::to_string(batch) : "batch");
    const awase_tensor &t = input(name.c_str(), &tensors[k], {port.dtype}, int(port.shape.size()) + 1, layout.c_str());
    if (k == 0) batch = t.shape[0];
    if (t.shape[0] != batch || !std::equal(port.shape.begin(), port.shape.end(), t.shape + 1))
      refuse(name, describe(t), layout);
    if (batch < 1 || batch > kMostElements / size_of_sample(port))
      refuse(name, describe(t), "a batch of at least 1, in memory");
    if (!is_contiguous(t)) refuse(name, "gaps or another order of axes in " + describe(t), "a C-contiguous tensor");
    if (t.device != AWASE_CPU && t.device != device_.number)
      refuse(name, describe(t), "host memory or the session's device");
  }
  return batch;
}

void Session::run(const awase_tensor *inputs, int32_t input_count, const awase_tensor *outputs,
                  int32_t output_count) const {
  const int64_t batch = check("input", graph().inputs, inputs, input_count);
  const int64_t made = check("output", graph().outputs, outputs, output_count);
  if (made != batch)
    refuse("outputs", "a batch of " + std::to_string(made), "the inputs' batch of " + std::to_string(batch));
  for (int32_t k = 0; k < output_count; ++k) {
    const char *name = graph().outputs[size_t(k)].name.c_str();
    for (int32_t in = 0; in < input_count; ++in) apart(name, outputs[k], "an input", inputs[in]);
    for (int32_t other = 0; other < k; ++other) apart(name, outputs[k], "another output", outputs[other]);
  }
  model_->run(inputs, outputs);
}

void Session::check_generates() const {
  const Graph &g = graph();
  if (g.inputs.size() != 1 || g.inputs[0].kind != AWASE_NOISE || g.inputs[0].dtype != AWASE_FLOAT32)
    throw Error(AWASE_INVALID, what_ + " cannot generate: it must have one input, float32 and of kind noise");
  for (const Port &port : g.outputs)
    if (port.dtype != AWASE_FLOAT32 ||
        !(port.kind == AWASE_VECTOR || (port.kind == AWASE_IMAGE && port.range == Bounds{-1, 1})))
      throw Error(AWASE_INVALID,
                  what_ + " cannot generate: output " + port.name + " must be a float32 image in [-1, 1] or vector");
}

void Session::generate(uint64_t seed, uint64_t first, const awase_tensor *outputs, int32_t output_count,
                       Scratch &scratch) const {
  check_generates();
  const Graph &g = graph();
  const size_t count = g.outputs.size();
  if (!outputs || output_count != int32_t(count))
    refuse("outputs", outputs ? std::to_string(output_count) + " tensors" : "NULL", std::to_string(count) + " tensors");
  const int64_t batch = outputs[0].rank > 0 && outputs[0].rank <= AWASE_MAX_RANK ? outputs[0].shape[0] : 0;
  if (batch < 1 || batch > (int64_t(1) << 31))
    refuse("outputs", "a batch of " + std::to_string(batch), "at least 1 sample in memory");

  // Every argument is checked before there is any work.
  for (size_t k = 0; k < count; ++k) {
    const std::vector<int64_t> &shape = g.outputs[k].shape;
    const std::string name = "output " + g.outputs[k].name;
    if (outputs[k].device != AWASE_CPU) refuse(name, "memory of a device", "host memory");
    if (g.outputs[k].kind == AWASE_IMAGE) {
      const bool alpha = shape[0] == 3 && outputs[k].rank == 4 && outputs[k].shape[3] == 4;
      output(name.c_str(), &outputs[k], AWASE_UINT8, {batch, shape[1], shape[2], alpha ? 4 : shape[0]});
    } else {
      output(name.c_str(), &outputs[k], AWASE_FLOAT32, {batch, shape[0]});
      if (!is_contiguous(outputs[k])) refuse(name, "gaps between its values", "a C-contiguous tensor");
    }
  }

  const int64_t dim = g.inputs[0].shape[0];
  scratch.noise.resize(size_t(batch * dim));
  scratch.images.resize(count);
  const awase_tensor z = contiguous(scratch.noise.data(), AWASE_FLOAT32, {batch, dim});
  kernels(awase_noise(seed, first, &z, nullptr));

  std::vector<awase_tensor> raw;  // what the graph writes: images to scratch memory, vectors to their place
  for (size_t k = 0; k < count; ++k) {
    const Port &port = g.outputs[k];
    if (port.kind != AWASE_IMAGE) {
      raw.push_back(outputs[k]);
      continue;
    }
    scratch.images[k].resize(size_t(batch * size_of_sample(port)));
    raw.push_back(contiguous(scratch.images[k].data(), AWASE_FLOAT32,
                             {batch, port.shape[0], port.shape[1], port.shape[2]}));
  }
  run(&z, 1, raw.data(), output_count);

  for (size_t k = 0; k < count; ++k) {
    if (g.outputs[k].kind == AWASE_IMAGE) {
      kernels(awase_pack(&raw[k], &outputs[k], nullptr));
      continue;
    }
    auto *values = static_cast<float *>(outputs[k].data);
    const size_t width = limits_[k].size();
    for (size_t j = 0; j < size_t(batch) * width; ++j) {
      const auto &[low, high] = limits_[k][j % width];
      values[j] = std::min(std::max(values[j], low), high);  // a NaN stays one
    }
  }
}

}  // namespace awase::engine
