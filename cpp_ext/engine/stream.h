// A stream of samples: a thread makes the next batch while the caller uses the last.
#pragma once

#include <array>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/session.h"

namespace awase::engine {

class Stream {
 public:
  Stream(std::shared_ptr<const Session> session, const awase_stream_options &options);
  ~Stream();

  // The number of samples in the next batch, 0 after the last; `outputs`: one tensor for each output.
  int64_t next(const awase_tensor **outputs);

 private:
  struct Batch {
    std::vector<std::vector<uint8_t>> images;  // one for each output, empty for vectors
    std::vector<std::vector<float>> vectors;   // one for each output, empty for images
    std::vector<awase_tensor> tensors;
    int64_t count = 0;
  };

  void work();
  void shape(Batch &batch, int64_t count) const;

  const std::shared_ptr<const Session> session_;
  const awase_stream_options options_;
  // The caller has two: the last batch given and the one before. The third is being made.
  std::array<Batch, 3> ring_;

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t asked_ = 0, made_ = 0;  // batches
  bool ended_ = false, stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace awase::engine
