#include "layers/linear.h"

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "layers/layers_world.h"
#include "nlohmann/json.hpp"

namespace efedllm {
namespace {

Matrix Product(Compute& compute, const PackedMatrix& w, ConstMatrixRef x) {
  Matrix y(x.rows, w.rows);
  Linear(compute).Run(x, {{w, y.ref()}});
  return y;
}

TEST(Linear, ARowDependsOnNeitherBatchNorThreadsNorKernels) {
  constexpr uint64_t kSeed = 30;
  Random random(kSeed);
  for (DType dtype : kAllDtypes) {
    const size_t rows = 100, cols = 512;
    const OwnedMatrix w = OwnedMatrix::Random(random, dtype, rows, cols);
    const Matrix x = GaussianMatrix(random, 70, cols);
    Compute alone = *Compute::Create(0, "scalar");
    const Matrix want = Product(alone, w.view(), x.ref());
    for (const KernelTable* kernels : RunnableKernels()) {
      for (int threads : {0, 1, 2, 5}) {
        Compute compute = *Compute::Create(threads, "auto");
        compute.kernels = kernels;
        EXPECT_TRUE(SameBits(Product(compute, w.view(), x.ref()).ref().span(), want.ref().span()))
            << DTypeName(dtype) << " " << threads << " threads, " << kernels->name;
        const ConstMatrixRef one{x.ref().row(33), 1, cols};
        EXPECT_TRUE(
            SameBits(Product(compute, w.view(), one).ref().span(), {want.ref().row(33), rows}));
      }
    }
  }
}

TEST(Linear, ALongPromptIsTheSameInOnePieceAndInTwo) {
  Random random(34);
  for (DType dtype : {DType::kQ4_K, DType::kF16}) {
    const size_t rows = 40, cols = 256, tokens = 600, first = 217;
    const OwnedMatrix w = OwnedMatrix::Random(random, dtype, rows, cols);
    const Matrix x = GaussianMatrix(random, tokens, cols);
    Compute compute = *Compute::Create(2, "auto");
    const Matrix whole = Product(compute, w.view(), x.ref());
    const Matrix one = Product(compute, w.view(), {x.ref().row(0), first, cols});
    const Matrix two = Product(compute, w.view(), {x.ref().row(first), tokens - first, cols});
    EXPECT_TRUE(SameBits(one.ref().span(), {whole.ref().row(0), first * rows}));
    EXPECT_TRUE(SameBits(two.ref().span(), {whole.ref().row(first), (tokens - first) * rows}));
  }
}

TEST(Linear, FloatWeightsGiveTheDotProducts) {
  Random random(31);
  Compute compute = *Compute::Create(2, "auto");
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const size_t rows = 37, cols = 172;
    const std::vector<uint8_t> gguf = RandomGguf(random, dtype, rows, cols);
    const OwnedMatrix w(dtype, rows, cols, gguf);
    const Matrix x = GaussianMatrix(random, 3, cols);
    const Matrix y = Product(compute, w.view(), x.ref());
    std::vector<float> row(cols);
    for (size_t r = 0; r < rows; ++r) {
      DequantizeRow(dtype, &gguf[r * RowBytes(dtype, cols).value()], cols, row.data());
      for (size_t c = 0; c < 3; ++c) {
        double exact = 0;
        for (size_t k = 0; k < cols; ++k) exact += double{row[k]} * x.ref().row(c)[k];
        EXPECT_NEAR(y.ref().row(c)[r], exact, 1e-5);
      }
    }
  }
}

TEST(Linear, OneCallServesTermsOfDifferentTypes) {
  Random random(32);
  Compute compute = *Compute::Create(2, "auto");
  const Matrix x = GaussianMatrix(random, 5, 256);
  const OwnedMatrix a = OwnedMatrix::Random(random, DType::kF16, 100, 256);
  const OwnedMatrix b = OwnedMatrix::Random(random, DType::kQ4_0, 30, 256);
  const OwnedMatrix c = OwnedMatrix::Random(random, DType::kQ6_K, 30, 256);
  Matrix ya(5, 100), yb(5, 30), yc(5, 30);
  Linear(compute).Run(x.ref(), {{a.view(), ya.ref()}, {b.view(), yb.ref()}, {c.view(), yc.ref()}});
  EXPECT_TRUE(SameBits(ya.ref().span(), Product(compute, a.view(), x.ref()).ref().span()));
  EXPECT_TRUE(SameBits(yb.ref().span(), Product(compute, b.view(), x.ref()).ref().span()));
  EXPECT_TRUE(SameBits(yc.ref().span(), Product(compute, c.view(), x.ref()).ref().span()));
}

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST(Linear, DotProductsAreAsNearAsTheParityPackAsks) {
  Compute compute = *Compute::Create(0, "auto");
  for (const char* name : {"f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_K", "q3_K",
                           "q4_K", "q5_K", "q6_K", "iq4_nl", "iq4_xs", "mxfp4"}) {
    const std::string path =
        std::string(EFEDLLM_SOURCE_DIR) + "/../shared/parity/quants/" + name + ".json";
    std::ifstream file(path);
    if (!file) GTEST_SKIP() << "no " << path;
    const nlohmann::json vectors = nlohmann::json::parse(file);
    for (const auto& item : vectors["dot"]) {
      std::vector<float> x = item["activation"].get<std::vector<float>>();
      const OwnedMatrix w(DTypeFromGguf(vectors["type_id"].get<uint32_t>()).value(), 1, x.size(),
                          FromHex(item["weight_bytes"].get<std::string>()));
      const Matrix y = Product(compute, w.view(), {x.data(), 1, x.size()});
      const double exact = item["exact_dot"], ggml = item["ggml_dot"];
      EXPECT_NEAR(y.ref().row(0)[0], exact, 2 * std::fabs(ggml - exact) + 2e-2) << name;
    }
  }
}

TEST(Compute, RefusesUnknownKernels) {
  EXPECT_EQ(Compute::Create(1, "avx9").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Compute::Create(-1, "auto").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace efedllm
