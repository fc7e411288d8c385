// What goes wrong inside the library, on its way to a status and a message at the C interface.
#pragma once

#include <stdexcept>
#include <string>

#include "awase/awase.h"

namespace awase {

struct Error : std::runtime_error {
  Error(awase_status status, const std::string &message) : std::runtime_error(message), status(status) {}
  awase_status status;
};

}  // namespace awase
