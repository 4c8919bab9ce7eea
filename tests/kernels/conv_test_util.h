// SPDX-License-Identifier: Apache-2.0
// What the convolution tests share: cases, random data, the comparison with double precision.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/conv_shape.h"
#include "kernels/kernels.h"
#include "tests/reference/conv.h"
#include "tests/reference/epilogue.h"
#include "tests/support/threads_executor.h"

namespace crease::test {

struct ConvCase {
  ConvShape shape;
  Epilogue epilogue = {};
  bool bias = true;
  bool prologue = false;
  bool in_place = false;  // the residual is dst itself
  int64_t src_extra = 0;  // pitch beyond the channels
  int64_t dst_extra = 0;
  bool planar = false;  // the source is plain

  std::string ToString() const {
    const ConvShape& s = shape;
    const auto pair = [](int64_t a, int64_t b) { return std::to_string(a) + "x" + std::to_string(b); };
    return std::to_string(s.batch) + "x" + pair(s.height, s.width) + " " + std::to_string(s.channels) + "->" +
           std::to_string(s.filters) + " kernel " + pair(s.kernel_h, s.kernel_w) + " stride " +
           pair(s.stride_h, s.stride_w) + " dilation " + pair(s.dilation_h, s.dilation_w) + " pad " +
           pair(s.pad_top, s.pad_left) + " groups " + std::to_string(s.groups) + " " + Name(epilogue.activation) +
           " residual " + std::to_string(static_cast<int>(epilogue.residual)) + (prologue ? " prologue" : "") +
           (planar ? " planar" : "") + (in_place ? " in place" : "");
  }
};

// A shape with symmetric padding; out_height and out_width follow.
inline ConvShape MakeConvShape(int64_t batch, int64_t h, int64_t w, int64_t c, int64_t k, int64_t kernel,
                               int64_t stride = 1, int64_t pad = -1, int64_t dilation = 1, int64_t groups = 1) {
  ConvShape s;
  s.batch = batch;
  s.height = h;
  s.width = w;
  s.channels = c;
  s.filters = k;
  s.kernel_h = s.kernel_w = kernel;
  s.stride_h = s.stride_w = stride;
  s.dilation_h = s.dilation_w = dilation;
  s.pad_top = s.pad_left = pad < 0 ? (kernel - 1) * dilation / 2 : pad;
  s.groups = groups;
  s.out_height = (h + 2 * s.pad_top - s.span_h()) / stride + 1;
  s.out_width = (w + 2 * s.pad_left - s.span_w()) / stride + 1;
  return s;
}

// Several workers also fetch for later steps, a little or more than they can.
inline std::vector<std::vector<ConstBytes>> SomethingToFetch(int workers) {
  static const std::vector<std::byte> later(1 << 20);
  std::vector<std::vector<ConstBytes>> fetch(static_cast<size_t>(workers > 1 ? workers : 0));
  for (size_t i = 0; i < fetch.size(); ++i)
    fetch[i] = {ConstBytes(later).subspan(i, 999), ConstBytes(later).first(i << 19)};
  return fetch;
}

// Random operands of a case, and what their convolution is.
class ConvData {
 public:
  explicit ConvData(const ConvCase& test, uint32_t seed = 1) : case_(test), random_(seed) {
    const ConvShape& s = test.shape;
    src_pitch = s.channels + test.src_extra;
    dst_pitch = s.filters + test.dst_extra;
    residual_pitch = test.in_place ? dst_pitch : s.filters + 3;
    src = Fill(s.batch * s.height * s.width * src_pitch, 1);
    const float scale = std::sqrt(1.0f / static_cast<float>(s.taps() * s.group_channels()));
    weights = Tensor::From<float>({s.filters, s.group_channels(), s.kernel_h, s.kernel_w},
                                  Fill(s.filters * s.group_channels() * s.taps(), scale));
    if (test.bias) bias = Tensor::From<float>({s.filters}, Fill(s.filters, 0.5f));
    scale_ = Fill(s.channels, 1);
    shift_ = Fill(s.channels, 0.3f);
    dst = Fill(s.out_pixels() * dst_pitch, 1);
    dst_before_ = dst;
    residual = test.in_place ? dst : Fill(s.out_pixels() * residual_pitch, 1);
    if (test.prologue) prologue = {scale_.data(), shift_.data(), Activation::kRelu, 0, 0};
  }

  ConvOperands operands() {
    const bool has_residual = case_.epilogue.residual != Residual::kNone;
    const float* from = case_.in_place ? dst.data() : residual.data();
    return {src.data(), src_pitch, dst.data(), dst_pitch, has_residual ? from : nullptr, residual_pitch};
  }

  // Compares dst with the definition. bound: of the largest error, relative to the rms of the sums.
  void Check(double bound) const {
    const ConvShape& s = case_.shape;
    const std::vector<double> sums = Convolve(
        s, [this](int64_t n, int64_t y, int64_t x, int64_t c) { return Source(n, y, x, c); }, weights.data<float>(),
        case_.bias ? bias.data<float>() : nullptr);
    double squares = 0;
    for (const double y : sums) squares += y * y;
    const double rms = std::sqrt(squares / static_cast<double>(sums.size())) + 1e-30;
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      for (int64_t k = 0; k < dst_pitch; ++k) {
        const double found = dst[static_cast<size_t>(pixel * dst_pitch + k)];
        if (k >= s.filters) {
          ASSERT_EQ(found, dst_before_[static_cast<size_t>(pixel * dst_pitch + k)]) << "wrote past the channels";
          continue;
        }
        const double r = residual[static_cast<size_t>(pixel * residual_pitch + k)];
        const double expected = Finish(case_.epilogue, sums[static_cast<size_t>(pixel * s.filters + k)], r);
        ASSERT_LE(std::abs(found - expected), bound * rms)
            << case_.ToString() << " at pixel " << pixel << " channel " << k << ": " << found << " for " << expected;
      }
    }
  }

  int64_t src_pitch = 0, dst_pitch = 0, residual_pitch = 0;
  std::vector<float> src, dst, residual;
  Tensor weights, bias;
  Prologue prologue;

 private:
  std::vector<float> Fill(int64_t count, float scale) {
    std::uniform_real_distribution<float> uniform(-1.7320508f * scale, 1.7320508f * scale);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = uniform(random_);
    return values;
  }

  double Source(int64_t n, int64_t y, int64_t x, int64_t c) const {
    const ConvShape& s = case_.shape;
    const int64_t at = case_.planar ? ((n * s.channels + c) * s.height + y) * s.width + x
                                    : ((n * s.height + y) * s.width + x) * src_pitch + c;
    const double value = src[static_cast<size_t>(at)];
    if (!case_.prologue) return value;
    return std::fmax(0, value * scale_[static_cast<size_t>(c)] + shift_[static_cast<size_t>(c)]);
  }

  ConvCase case_;
  std::mt19937 random_;
  std::vector<float> scale_, shift_, dst_before_;
};

struct ConvChoice {
  bool measured = false, exact = false;
  bool planar = false;  // the source is plain
};

// Whether a kernel takes this convolution, without bias, of symmetric padding.
inline bool Takes(KernelResult (*make)(const KernelRequest&), const ConvShape& s, ConvChoice choice = {}) {
  const ConvCase test{s};
  const ConvData data(test);
  Node node;
  node.op_type = "Conv";
  node.attributes = {MakeAttr("strides", std::vector<int64_t>{s.stride_h, s.stride_w}),
                     MakeAttr("pads", std::vector<int64_t>(4, s.pad_top)), MakeAttr("group", s.groups)};
  const Shape src{s.batch, s.channels, s.height, s.width}, dst{s.batch, s.filters, s.out_height, s.out_width};
  const Layout layout = choice.planar ? Layout::kPlain : Layout::kChannelsLast;
  const Operand sources[] = {{true, DType::kFloat32, src, layout, choice.planar ? 0 : s.channels, nullptr},
                             {true, DType::kFloat32, data.weights.shape(), Layout::kPlain, 0, &data.weights}};
  const Operand result[] = {{true, DType::kFloat32, dst, Layout::kChannelsLast, s.filters, nullptr}};
  KernelRequest request{.node = node, .opset = 17, .src = sources, .dst = result, .epilogue = {}, .prologue = {}};
  request.measured = choice.measured;
  request.exact = choice.exact;
  return make(request).ok();
}

}  // namespace crease::test
