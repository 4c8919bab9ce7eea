// SPDX-License-Identifier: Apache-2.0
// Tiles one after the other: what one leaves becomes its result while the next one computes.
#pragma once

#include <cstdint>

#include "kernels/amx.h"
#include "kernels/gemm_tile.h"

namespace crease {

// Of one thread, inside an AmxScope.
class AmxQueue {
 public:
  AmxQueue(const AmxOps& ops, const GemmOps& gemm) : ops_(ops), gemm_(gemm) {}
  AmxQueue(const AmxQueue&) = delete;
  AmxQueue& operator=(const AmxQueue&) = delete;

  // Computes `tile` by `vectors` tiles of columns, then writes the result of the call before. The sums are the queue's.
  // With `epilogue` the result has neither bounds nor residual of its own. What they point to must live until Flush.
  void Push(AmxTile tile, int vectors, const AmxResult& result, const Epilogue* epilogue) {
    tile.sums = sums_[turn_];
    ops_.tile[vectors](tile);
    Flush();
    waiting_ = result;
    waiting_.sums = tile.sums;
    waiting_.width = int64_t{vectors} * kAmxColumns;
    epilogue_ = epilogue;
    turn_ ^= 1;
  }

  void Flush() {
    if (waiting_.sums == nullptr) return;
    if (epilogue_ == nullptr) {
      ops_.result(waiting_);
    } else {
      FinishTile finish = waiting_.out;
      finish.src = values_;
      finish.src_stride = waiting_.width;
      BoundsOf(Epilogue{}, waiting_.lo, waiting_.hi);
      waiting_.out = {nullptr, 0, values_, waiting_.width, nullptr, 0, finish.rows, finish.columns};
      ops_.result(waiting_);
      gemm_.finish(finish, *epilogue_);
    }
    waiting_.sums = nullptr;
  }

 private:
  const AmxOps& ops_;
  const GemmOps& gemm_;
  AmxResult waiting_;
  const Epilogue* epilogue_ = nullptr;
  int turn_ = 0;
  alignas(64) int32_t sums_[2][kAmxDigits * kAmxTileSums];
  alignas(64) float values_[kAmxTileSums];
};

}  // namespace crease
