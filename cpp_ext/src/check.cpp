#include "src/check.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "src/error.h"

namespace awase {
namespace {

const char *const kDtypes[] = {"uint8", "float16", "float32", "float64", "int64"};

std::string shape_text(const int64_t *shape, int rank) {
  std::string text = "[";
  for (int k = 0; k < rank; ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + "]";
}

std::string place(int32_t device) {
  return device == AWASE_CPU ? "in host memory" : "on CUDA device " + std::to_string(device);
}

// First and one past the last byte that the tensor can touch.
void span(const awase_tensor &t, uintptr_t &begin, uintptr_t &end) {
  int64_t low = 0, high = 0;
  for (int k = 0; k < t.rank; ++k) (t.strides[k] < 0 ? low : high) += (t.shape[k] - 1) * t.strides[k];
  const int64_t size = size_of(t.dtype);
  begin = reinterpret_cast<uintptr_t>(t.data) + uintptr_t(low * size);
  end = reinterpret_cast<uintptr_t>(t.data) + uintptr_t((high + 1) * size);
}

// Sorted by stride, every axis must step over all that the smaller ones span.
bool names_an_element_twice(const awase_tensor &t) {
  std::vector<std::pair<int64_t, int64_t>> axes;  // (|stride|, size)
  for (int k = 0; k < t.rank; ++k)
    if (t.shape[k] > 1) axes.emplace_back(std::abs(t.strides[k]), t.shape[k]);
  std::sort(axes.begin(), axes.end());
  int64_t reach = 0;
  for (const auto &[stride, size] : axes) {
    if (stride <= reach) return true;
    reach += stride * (size - 1);
  }
  return false;
}

const awase_tensor &usable(const char *name, const awase_tensor *pointer, const std::string &expected) {
  if (!pointer) refuse(name, "NULL", expected);
  const awase_tensor &t = *pointer;
  if (t.dtype < 0 || t.dtype > AWASE_INT64) refuse(name, "dtype number " + std::to_string(t.dtype), expected);
  if (t.rank < 0 || t.rank > AWASE_MAX_RANK) refuse(name, "rank " + std::to_string(t.rank), expected);
  if (t.device < AWASE_CPU) refuse(name, "device " + std::to_string(t.device), "AWASE_CPU or a CUDA device's number");
  for (int k = 0; k < t.rank; ++k)
    if (t.shape[k] < 0) refuse(name, describe(t), expected);
  if (!t.data && elements(t) > 0) refuse(name, "a null pointer for " + describe(t), expected);
  return t;
}

}  // namespace

void refuse(const std::string &name, const std::string &got, const std::string &expected) {
  throw Error(AWASE_INVALID, name + ": got " + got + ", expected " + expected);
}

int64_t size_of(int32_t dtype) {
  const int64_t sizes[] = {1, 2, 4, 8, 8};
  return sizes[dtype];
}

int64_t elements(const awase_tensor &t) {
  int64_t count = 1;
  for (int k = 0; k < t.rank; ++k) count *= t.shape[k];
  return count;
}

std::string describe(const awase_tensor &t) {
  return std::string(kDtypes[t.dtype]) + " " + shape_text(t.shape, t.rank) + " " + place(t.device);
}

const awase_tensor &input(const char *name, const awase_tensor *pointer, std::initializer_list<awase_dtype> dtypes,
                          int rank, const char *layout) {
  std::string expected;
  for (awase_dtype dtype : dtypes) expected += (expected.empty() ? "" : " or ") + std::string(kDtypes[dtype]);
  expected += std::string(" ") + layout;
  const awase_tensor &t = usable(name, pointer, expected);
  bool known = false;
  for (awase_dtype dtype : dtypes) known |= t.dtype == dtype;
  if (!known || t.rank != rank) refuse(name, describe(t), expected);
  return t;
}

const awase_tensor &output(const char *name, const awase_tensor *pointer, awase_dtype dtype,
                           std::initializer_list<int64_t> shape) {
  const std::string expected = std::string(kDtypes[dtype]) + " " + shape_text(shape.begin(), int(shape.size()));
  const awase_tensor &t = usable(name, pointer, expected);
  if (t.dtype != dtype || t.rank != int(shape.size()) || !std::equal(shape.begin(), shape.end(), t.shape))
    refuse(name, describe(t), expected);
  if (elements(t) > 0 && names_an_element_twice(t))
    refuse(name, "strides " + shape_text(t.strides, t.rank) + " for shape " + shape_text(t.shape, t.rank),
           "an output whose elements do not overlap");
  return t;
}

void same_device(const char *name, const awase_tensor &tensor, const char *like, const awase_tensor &reference) {
  if (tensor.device != reference.device)
    refuse(name, describe(tensor), std::string("it ") + place(reference.device) + " like " + like);
}

void apart(const char *out_name, const awase_tensor &out, const char *in_name, const awase_tensor &in) {
  if (out.device != in.device || !elements(out) || !elements(in)) return;
  uintptr_t out_begin, out_end, in_begin, in_end;
  span(out, out_begin, out_end);
  span(in, in_begin, in_end);
  if (out_begin < in_end && in_begin < out_end)
    refuse(out_name, std::string("memory shared with ") + in_name, "memory of its own");
}

}  // namespace awase
