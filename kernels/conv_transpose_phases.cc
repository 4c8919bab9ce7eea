// SPDX-License-Identifier: Apache-2.0
// ConvTranspose as one convolution for each phase: dst pixels that lie a stride apart take the same taps of
// neighbouring source pixels.
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/conv_gemm.h"
#include "kernels/conv_transpose.h"
#include "kernels/conv_wrapper.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr int64_t kMostPhases = 64;
// Narrower tiles of the micro-kernel wait for their weights.
constexpr int64_t kFewestPixels = 6;
// What TransposedConv does with a vector of products, in vector multiply-adds: it stores and reads it, mostly in L2.
constexpr double kSum = 12;

using Taps = std::vector<std::vector<TransposedTap>>;

struct Phase {
  int64_t y = 0, x = 0;  // of its first dst pixel
  ConvShape shape;
  MatrixSource matrix;
};

int64_t StepOf(const std::vector<TransposedTap>& taps) { return taps.size() > 1 ? taps[1].tap - taps[0].tap : 1; }

// From the highest tap down, as the source is read upwards.
Phase PhaseAt(const ConvShape& s, const Taps& rows, const Taps& columns, int64_t y, int64_t x) {
  const std::vector<TransposedTap>& vertical = rows[static_cast<size_t>(y)];
  const std::vector<TransposedTap>& horizontal = columns[static_cast<size_t>(x)];
  Phase phase;
  phase.y = y;
  phase.x = x;
  ConvShape& own = phase.shape;
  own = s;
  own.kernel_h = static_cast<int64_t>(vertical.size());
  own.kernel_w = static_cast<int64_t>(horizontal.size());
  own.out_height = (s.out_height - y - 1) / s.stride_h + 1;
  own.out_width = (s.out_width - x - 1) / s.stride_w + 1;
  own.stride_h = own.stride_w = 1;
  own.pad_top = -vertical.back().first;
  own.pad_left = -horizontal.back().first;
  own.dilation_h = own.kernel_h > 1 ? vertical[0].first - vertical[1].first : 1;
  own.dilation_w = own.kernel_w > 1 ? horizontal[0].first - horizontal[1].first : 1;
  MatrixSource& matrix = phase.matrix;
  matrix.columns = s.filters;
  matrix.channels = s.channels;
  matrix.taps = own.taps();
  matrix.column_stride = s.taps();
  matrix.channel_stride = s.filters * s.taps();
  matrix.tap_columns = own.kernel_w;
  matrix.tap_offset = vertical.back().tap * s.kernel_w + horizontal.back().tap;
  matrix.tap_row_stride = -StepOf(vertical) * s.kernel_w;
  matrix.tap_stride = -StepOf(horizontal);
  return phase;
}

Result<std::vector<Phase>> PhasesOf(const ConvShape& s) {
  if (s.groups != 1) return Refuse("groups > 1");
  if (std::min(s.stride_h, s.out_height) * std::min(s.stride_w, s.out_width) > kMostPhases) {
    return Refuse("large strides");
  }
  const Taps rows = TransposedTaps(s.stride_h, s.kernel_h, s.dilation_h, s.pad_top, s.out_height);
  const Taps columns = TransposedTaps(s.stride_w, s.kernel_w, s.dilation_w, s.pad_left, s.out_width);
  for (const Taps& taps : {rows, columns}) {
    for (const std::vector<TransposedTap>& phase : taps) {
      if (phase.empty()) return Refuse("pixels without a tap");
      if (phase.back().first > 0) return Refuse("pads cut off whole source rows or columns");
    }
  }
  std::vector<Phase> phases;
  for (size_t y = 0; y < rows.size(); ++y) {
    for (size_t x = 0; x < columns.size(); ++x) {
      phases.push_back(PhaseAt(s, rows, columns, static_cast<int64_t>(y), static_cast<int64_t>(x)));
    }
  }
  return phases;
}

double Vectors(int64_t channels) { return static_cast<double>(DivideUp(channels, kMaxLanes)); }

// Whatever the number of workers: the choice decides the bits.
bool Pays(const ConvShape& s, const std::vector<Phase>& phases) {
  double cost = 0;
  for (const Phase& phase : phases) {
    const double narrow =
        std::max(1.0, static_cast<double>(kFewestPixels) / static_cast<double>(phase.shape.out_width));
    cost +=
        narrow * static_cast<double>(phase.shape.out_pixels() * phase.shape.taps() * s.channels) * Vectors(s.filters);
  }
  const double products = static_cast<double>(s.channels) * Vectors(s.taps() * s.filters);
  const double sums = kSum * static_cast<double>(s.taps()) * Vectors(s.filters);
  return cost <= static_cast<double>(s.batch * s.height * s.width) * (products + sums);
}

class PhasedConv {
 public:
  struct Part {
    int64_t pixel = 0;  // the first of dst
    GemmConv conv;
  };

  explicit PhasedConv(std::vector<Part> parts) : parts_(std::move(parts)) {}
  std::string Describe() const {
    return std::to_string(parts_.size()) + (parts_.size() == 1 ? " phase, " : " phases, ") +
           parts_.front().conv.Describe();
  }
  size_t scratch_bytes(int workers) const {
    size_t most = 0;
    for (const Part& part : parts_) most = std::max(most, part.conv.scratch_bytes(workers));
    return most;
  }
  void Run(const RunContext& context, const ConvOperands& operands) const {
    for (const Part& part : parts_) {
      ConvOperands own = operands;
      own.dst += part.pixel * operands.dst_pitch;
      if (own.residual != nullptr) own.residual += part.pixel * operands.residual_pitch;
      part.conv.Run(context, own);
    }
  }

 private:
  std::vector<Part> parts_;
};

}  // namespace

KernelResult MakeConvTransposePhases(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvTransposeRequest(request));
  const ConvShape& s = conv.shape;
  CREASE_ASSIGN_OR_RETURN(std::vector<Phase> phases, PhasesOf(s));
  if (!request.measured && !Pays(s, phases)) return Refuse("too few filters or pixels to gain");
  GemmConv::Options options{OptionsOf(request)};
  options.src_pitch = request.src[0].pitch;
  options.lattice = {s.stride_h, s.stride_w, s.out_height, s.out_width};
  std::vector<PhasedConv::Part> parts;
  for (Phase& phase : phases) {
    phase.matrix.values = conv.weights;
    phase.matrix.bias = conv.bias;
    CREASE_ASSIGN_OR_RETURN(GemmConv made, GemmConv::Make(phase.shape, phase.matrix, options));
    parts.push_back({phase.y * s.out_width + phase.x, std::move(made)});
  }
  return WrapConv(PhasedConv(std::move(parts)), request.epilogue);
}

}  // namespace crease
