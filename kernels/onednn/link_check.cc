// SPDX-License-Identifier: Apache-2.0
// A program of its own, for scripts/deps.sh: proves that a freshly built oneDNN links and runs. A 1x1 convolution and a
// matrix product of ones, each a sum of 32 products.
#include <oneapi/dnnl/dnnl_config.h>
#include <oneapi/dnnl/dnnl.hpp>

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL
#include <oneapi/dnnl/dnnl_threadpool.hpp>
#endif

#include <cstdio>
#include <unordered_map>
#include <vector>

namespace {

using dnnl::memory;

bool AllAre(const std::vector<float>& values, float expected) {
  for (float value : values) {
    if (value != expected) return false;
  }
  return true;
}

bool CheckConvolution(const dnnl::engine& engine, dnnl::stream& stream, bool transposed) {
  const memory::desc src({1, 32, 5, 5}, memory::data_type::f32, memory::format_tag::nhwc);
  const memory::desc weights({16, 32, 1, 1}, memory::data_type::f32, memory::format_tag::oihw);
  const memory::desc any({16, 32, 1, 1}, memory::data_type::f32, memory::format_tag::any);
  const memory::desc dst({1, 16, 5, 5}, memory::data_type::f32, memory::format_tag::nhwc);
  std::vector<float> src_data(32 * 25, 1.0f), weights_data(32 * 16, 1.0f), dst_data(16 * 25, 0.0f);
  memory src_memory(src, engine, src_data.data()), weights_memory(weights, engine, weights_data.data()),
      dst_memory(dst, engine, dst_data.data());

  dnnl::primitive primitive;
  memory::desc packed_desc;
  if (transposed) {
    const dnnl::deconvolution_forward::primitive_desc desc(engine, dnnl::prop_kind::forward_inference,
                                                           dnnl::algorithm::deconvolution_direct, src, any, dst, {1, 1},
                                                           {0, 0}, {0, 0});
    packed_desc = desc.weights_desc();
    primitive = dnnl::deconvolution_forward(desc);
  } else {
    const dnnl::convolution_forward::primitive_desc desc(engine, dnnl::prop_kind::forward_inference,
                                                         dnnl::algorithm::convolution_direct, src, any, dst, {1, 1},
                                                         {0, 0}, {0, 0});
    packed_desc = desc.weights_desc();
    primitive = dnnl::convolution_forward(desc);
  }
  memory packed(packed_desc, engine);
  dnnl::reorder(weights_memory, packed).execute(stream, weights_memory, packed);
  primitive.execute(stream, {{DNNL_ARG_SRC, src_memory}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, dst_memory}});
  stream.wait();
  return AllAre(dst_data, 32.0f);
}

bool CheckMatmul(const dnnl::engine& engine, dnnl::stream& stream) {
  const memory::desc a({7, 32}, memory::data_type::f32, memory::format_tag::ab);
  const memory::desc b({32, 19}, memory::data_type::f32, memory::format_tag::ab);
  const memory::desc c({7, 19}, memory::data_type::f32, memory::format_tag::ab);
  std::vector<float> a_data(7 * 32, 1.0f), b_data(32 * 19, 1.0f), c_data(7 * 19, 0.0f);
  memory a_memory(a, engine, a_data.data()), b_memory(b, engine, b_data.data()), c_memory(c, engine, c_data.data());
  dnnl::matmul(dnnl::matmul::primitive_desc(engine, a, b, c))
      .execute(stream, {{DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}});
  stream.wait();
  return AllAre(c_data, 32.0f);
}

}  // namespace

int main() {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL
  dnnl::stream stream = dnnl::threadpool_interop::make_stream(engine, nullptr);
#else
  dnnl::stream stream(engine);
#endif
  const bool good =
      CheckConvolution(engine, stream, false) && CheckConvolution(engine, stream, true) && CheckMatmul(engine, stream);
  std::puts(good ? "oneDNN computes what it should" : "oneDNN computes something else");
  return good ? 0 : 1;
}
