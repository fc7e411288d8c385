// A Python array of any library, seen as an awase_tensor without a copy.
#pragma once

#include <nanobind/nanobind.h>

#include "awase/awase.h"

// How an argument is used.
enum class Access { read, write };

// A view by the buffer protocol, given back at the end.
struct Buffer {
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() {
    if (held) PyBuffer_Release(&view);
  }
  Py_buffer view{};
  bool held = false;
};

// Holds on to the array while it lives. Takes whatever speaks the buffer protocol (NumPy), DLPack (PyTorch, CuPy, JAX) or
// __cuda_array_interface__ (PyCUDA, Numba); None gives no tensor. Throws ValueError or TypeError naming the argument.
class __attribute__((visibility("hidden"))) Tensor {
 public:
  Tensor(const char *name, nanobind::handle array, Access access = Access::read);

  // NULL for None.
  const awase_tensor *get() const { return present_ ? &tensor_ : nullptr; }

  // The same memory with other axes; nothing where the rank is another than named, for the C interface to complain about.
  Tensor &permuted(const int (&order)[4]);     // of rank 4: axis k is what was axis order[k]
  Tensor &with_first_axis(int rank);           // of this rank: one more axis, of size 1, in front
  Tensor &with_last_merged(const char *name);  // of rank 4: the last two axes as one. Throws if they cannot be

 private:
  bool from_buffer(const char *name, nanobind::handle array, Access access);
  bool from_dlpack(const char *name, nanobind::handle array);
  bool from_cuda_array_interface(const char *name, nanobind::handle array, Access access);
  void set_dtype(const char *name, nanobind::handle array, char kind, int64_t bits);
  void set_rank(const char *name, int64_t rank);
  void set_byte_stride(const char *name, int axis, int64_t bytes);

  awase_tensor tensor_{};
  bool present_ = false;
  Buffer buffer_;
  nanobind::object capsule_;  // DLPack's, whose destructor releases the memory
};
