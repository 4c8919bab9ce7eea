// SPDX-License-Identifier: Apache-2.0
// embed MODEL: loads a network, runs it once on zeros, and prints the first output's values.
#include <crease/session.h>

#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  crease::Result<crease::Session> session = crease::Session::load(argv[1]);
  if (!session) return std::fprintf(stderr, "%s\n", session.error().ToString().c_str()), 1;

  crease::TensorSpec in = session->inputs()[0];
  for (int64_t& size : in.shape) size = size < 0 ? 1 : size;  // a free dimension, such as the batch
  crease::Result<std::vector<crease::Shape>> shapes = session->output_shapes({&in.shape, 1});
  if (!shapes) return std::fprintf(stderr, "%s\n", shapes.error().ToString().c_str()), 1;

  auto count = [](const crease::Shape& shape) {
    size_t product = 1;
    for (int64_t size : shape) product *= static_cast<size_t>(size);
    return product;
  };
  std::vector<float> src(count(in.shape)), dst(count(shapes->front()));
  const crease::Input input{in.name, in.dtype, in.shape, src.data()};
  const crease::Output output{session->outputs()[0].name, crease::DType::kFloat32, shapes->front(), dst.data()};
  if (crease::Result<void> done = session->run({&input, 1}, {&output, 1}); !done)
    return std::fprintf(stderr, "%s\n", done.error().ToString().c_str()), 1;
  for (float value : dst) std::printf("%g\n", value);
}
