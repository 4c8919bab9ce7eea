// SPDX-License-Identifier: Apache-2.0
// .safetensors files: 8 bytes of header length, a JSON header, the tensors' bytes (format as described
// at huggingface.co/docs/safetensors).
#pragma once

#include <string>

#include "graph/npz.h"

namespace crease {

// In the header's order. Errors name the file and the tensor: truncated, bad JSON, a dtype that Crease
// has not, offsets outside the file or unlike the shape.
Result<NamedTensors> ReadSafetensors(const std::string& path, const NpzOptions& options = {});

// Written beside the target and renamed over it.
Result<void> WriteSafetensors(const std::string& path, const NamedTensors& tensors);

}  // namespace crease
