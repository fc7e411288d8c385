// Checks of the C interface's arguments. Each failure names the argument, what came and what was expected.
#pragma once

#include <initializer_list>
#include <string>

#include "awase/awase.h"

namespace awase {

// "float32 [4, 3, 80, 80] on CUDA device 0"
std::string describe(const awase_tensor &tensor);

// The tensor behind `pointer` has one of these dtypes, this rank (`layout` is how to say it) and usable memory.
const awase_tensor &input(const char *name, const awase_tensor *pointer, std::initializer_list<awase_dtype> dtypes,
                          int rank, const char *layout);

// As `input`, and of this shape, with strides that never name an element twice.
const awase_tensor &output(const char *name, const awase_tensor *pointer, awase_dtype dtype,
                           std::initializer_list<int64_t> shape);

// `tensor` is where `reference`, called `like`, is.
void same_device(const char *name, const awase_tensor &tensor, const char *like, const awase_tensor &reference);

// `out` and `in` share no memory, judged by the ranges of addresses they span.
void apart(const char *out_name, const awase_tensor &out, const char *in_name, const awase_tensor &in);

int64_t elements(const awase_tensor &tensor);

// Bytes of one element.
int64_t size_of(int32_t dtype);

// Throws AWASE_INVALID: "name: got …, expected …".
[[noreturn]] void refuse(const std::string &name, const std::string &got, const std::string &expected);

}  // namespace awase
