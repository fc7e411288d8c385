#include "engine/stream.h"

#include <algorithm>

#include "src/check.h"

namespace awase::engine {
namespace {

awase_stream_options checked(awase_stream_options options) {
  if (options.batch == 0) options.batch = 64;
  if (options.batch < 1 || options.batch > INT32_MAX)
    refuse("batch", std::to_string(options.batch), "1 to 2^31 - 1, or 0 for 64");
  if (options.count && options.count - 1 > UINT64_MAX - options.first)
    refuse("first", std::to_string(options.first) + " with " + std::to_string(options.count) + " samples",
           "samples below 2^64");
  // Without end: as many as there are. (Of 2^64 the last is left out.)
  if (options.count == 0) options.count = std::max(UINT64_MAX - options.first, uint64_t(1));
  return options;
}

}  // namespace

Stream::Stream(std::shared_ptr<const Session> session, const awase_stream_options &options)
    : session_(std::move(session)), options_(checked(options)) {
  session_->check_generates();
  const auto largest = int64_t(std::min(uint64_t(options_.batch), options_.count));
  for (Batch &batch : ring_) {
    for (const Port &port : session_->graph().outputs) {
      size_t size = size_t(largest);
      for (int64_t axis : port.shape) size *= size_t(axis);
      batch.images.emplace_back(port.kind == AWASE_IMAGE ? size : 0);
      batch.vectors.emplace_back(port.kind == AWASE_IMAGE ? 0 : size);
    }
    shape(batch, largest);
  }
  thread_ = std::thread([this] { work(); });
}

Stream::~Stream() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::shape(Batch &batch, int64_t count) const {
  if (batch.count == count) return;
  batch.count = count;
  batch.tensors.clear();
  const std::vector<Port> &ports = session_->graph().outputs;
  for (size_t k = 0; k < ports.size(); ++k) {
    const std::vector<int64_t> &s = ports[k].shape;
    if (ports[k].kind == AWASE_IMAGE)
      batch.tensors.push_back(contiguous(batch.images[k].data(), AWASE_UINT8, {count, s[1], s[2], s[0]}));
    else
      batch.tensors.push_back(contiguous(batch.vectors[k].data(), AWASE_FLOAT32, {count, s[0]}));
  }
}

// Batch n goes to ring_[n % 3]. It may be made once n calls of `next` have begun: then n - 3 is the caller's no more.
void Stream::work() {
  Scratch scratch;
  uint64_t done = 0;
  for (uint64_t number = 0; done < options_.count; ++number) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || number <= asked_; });
      if (stop_) return;
    }
    Batch &batch = ring_[number % ring_.size()];
    std::exception_ptr failure;
    try {
      shape(batch, int64_t(std::min(uint64_t(options_.batch), options_.count - done)));
      session_->generate(options_.seed, options_.first + done, batch.tensors.data(), int32_t(batch.tensors.size()),
                         scratch);
    } catch (...) {
      failure = std::current_exception();
    }
    done += uint64_t(batch.count);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (failure)
        failure_ = failure;
      else
        made_ = number + 1;
      ended_ = failure || done == options_.count;
    }
    changed_.notify_all();
    if (failure) return;
  }
}

int64_t Stream::next(const awase_tensor **outputs) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t number = asked_;
  if (!ended_ || number < made_) ++asked_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return number < made_ || ended_; });
  if (number < made_) {
    Batch &batch = ring_[number % ring_.size()];
    *outputs = batch.tensors.data();
    return batch.count;
  }
  if (failure_) std::rethrow_exception(failure_);
  *outputs = nullptr;
  return 0;
}

}  // namespace awase::engine
