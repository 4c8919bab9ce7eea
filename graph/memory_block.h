// SPDX-License-Identifier: Apache-2.0
// Memory for tensors and files.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace crease {

// Gives back the whole pages inside `part`. Of a mapped file they are read again when somebody touches them; of a block
// they are zero then.
void DropPages(std::span<const std::byte> part);

// At least 64-byte aligned, not zeroed; null where there is none. Blocks of several MiB lie in huge pages
// where the system has them: a fold touches every byte once, so that page faults would be most of its time.
std::shared_ptr<std::byte> AllocateBlock(size_t bytes);

}  // namespace crease
