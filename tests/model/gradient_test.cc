#include "model/gradient.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/boundary_rows.h"
#include "model/embedding.h"
#include "model/gguf_builder.h"
#include "model/gradient_head.h"
#include "model/gradient_layer.h"
#include "model/local_model.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/ropes.h"
#include "model/text_quality.h"
#include "numerics/synthetic_model.h"

namespace efedllm {
namespace {

constexpr DType kFloats[] = {DType::kF32};
constexpr uint64_t kSeed = 5;

// A small model of an architecture, and what crosses its boundaries while it reads two sequences,
// one of which is longer than the model's attention window.
struct GradientWorld {
  GradientWorld(const std::string& architecture, absl::Span<const DType> dtypes)
      : gguf(SyntheticModel::Build(architecture, false, dtypes)),
        file(*ModelFile::Parse(BytesOf(gguf))),
        config(*ModelConfigFromFile(file)),
        compute(*Compute::Create(2, "auto")),
        head(*OutputHead::Create(config, file, compute)) {
    Random random(7);
    for (uint32_t i = 0; i < lengths[0] + lengths[1]; ++i) {
      tokens.push_back(static_cast<int32_t>(random.Below(config.vocab)));
    }
    Matrix hidden(tokens.size(), config.d_model);
    EXPECT_TRUE(Embedding::Create(config, file)->Lookup(tokens, hidden.ref()).ok());
    rows.push_back(hidden);
    for (uint32_t layer = 0; layer < config.layers; ++layer) {
      Run(layer, hidden);
      rows.push_back(hidden);
    }
  }

  void Run(uint32_t layer, Matrix& hidden) {
    EXPECT_TRUE(RunOneLayer(file, config, layer, lengths, {hidden.ref()}, compute, nullptr).ok());
  }

  // The engine's logits from a boundary on.
  Matrix Logits(uint32_t boundary, Matrix hidden) {
    for (uint32_t layer = boundary; layer < config.layers; ++layer) Run(layer, hidden);
    Matrix logits(hidden.rows(), config.vocab);
    head->Logits(hidden.ref(), logits.ref());
    return logits;
  }

  std::vector<int32_t> Draws() {
    Matrix logits = Logits(config.layers, rows.back());
    std::vector<int32_t> drawn;
    for (size_t row = 0; row < logits.rows(); ++row) {
      const absl::Span<const float> all(logits.row(row), logits.cols());
      std::vector<float> p;
      for (size_t i = 0; i < all.size(); ++i) {
        p.push_back(static_cast<float>(std::exp(LogProbability(all, static_cast<int32_t>(i)))));
      }
      Random random = DrawsOfRow(kSeed, row);
      drawn.push_back(static_cast<int32_t>(DrawToken(p, random)));
    }
    return drawn;
  }

  double LogLikelihood(uint32_t boundary, const Matrix& hidden, const std::vector<int32_t>& drawn) {
    Matrix logits = Logits(boundary, hidden);
    double sum = 0;
    for (size_t row = 0; row < logits.rows(); ++row) {
      sum += LogProbability({logits.row(row), logits.cols()}, drawn[row]);
    }
    return sum;
  }

  std::vector<Matrix> Gradients(uint32_t draws) {
    std::vector<Matrix> gradients(config.layers + 1);
    const auto rows_of = [&](uint32_t boundary) { return std::as_const(rows[boundary]).ref(); };
    EXPECT_TRUE(VisitGradients(file, config, {lengths, rows_of}, {.draws = draws, .seed = kSeed},
                               compute,
                               [&](uint32_t boundary, ConstMatrixRef gradient) {
                                 gradients[boundary] = Matrix(gradient.rows, gradient.cols);
                                 std::copy_n(gradient.data, gradient.rows * gradient.cols,
                                             gradients[boundary].row(0));
                                 return absl::OkStatus();
                               })
                    .ok());
    return gradients;
  }

  const std::string gguf;
  const ModelFile file;
  const ModelConfig config;
  Compute compute;
  const std::unique_ptr<OutputHead> head;
  const std::vector<uint32_t> lengths = {50, 14};
  std::vector<int32_t> tokens;
  std::vector<Matrix> rows;  // of each boundary
};

class Gradient : public testing::TestWithParam<const char*> {};

// What the backward pass recomputes is what the engine computed.
TEST_P(Gradient, RecomputesTheEnginesLayers) {
  GradientWorld world(GetParam(), kAllDtypes);
  const std::vector<Rope> ropes = *MakeRopes(world.config, {});
  for (uint32_t layer = 0; layer < world.config.layers; ++layer) {
    auto gradient = LayerGradient::Create(world.file, world.config, layer, ropes, world.compute);
    ASSERT_TRUE(gradient.ok()) << gradient.status();
    const Matrix& inputs = world.rows[layer];
    const ConstMatrixRef out = (*gradient)->Forward(world.lengths, inputs.ref());
    const ConstMatrixRef expected = std::as_const(world.rows[layer + 1]).ref();
    double error = 0, energy = 0;
    for (size_t i = 0; i < out.rows * out.cols; ++i) {
      error += std::pow(out.data[i] - expected.data[i], 2);
      energy += std::pow(expected.data[i], 2);
    }
    EXPECT_LT(std::sqrt(error / energy), 2e-3) << "layer " << layer;
  }
}

// Central differences along the gradient and along random halves of it.
TEST_P(Gradient, EqualsFiniteDifferences) {
  GradientWorld world(GetParam(), kFloats);
  const std::vector<int32_t> drawn = world.Draws();
  std::vector<Matrix> gradients = world.Gradients(1);
  Random random(11);
  for (uint32_t boundary = 0; boundary <= world.config.layers; ++boundary) {
    Matrix& gradient = gradients[boundary];
    for (const double kept : {1.0, 0.5, 0.1}) {
      std::vector<float> direction(gradient.ref().span().begin(), gradient.ref().span().end());
      double square = 0;
      for (float& x : direction) {
        if (random.Uniform() >= kept) x = 0;
        square += double{x} * double{x};
      }
      // A step that moves the sum by about 0.02.
      const auto step = static_cast<float>(0.02 / square);
      const auto moved = [&](float by) {
        Matrix hidden = world.rows[boundary];
        for (size_t i = 0; i < direction.size(); ++i) hidden.ref().data[i] += by * direction[i];
        return world.LogLikelihood(boundary, hidden, drawn);
      };
      const double slope = (moved(step) - moved(-step)) / (2 * double{step});
      EXPECT_NEAR(slope / square, 1, 0.03) << "boundary " << boundary << ", " << kept;
    }
  }
}

TEST_P(Gradient, DrawsAreIndependentOfEachOther) {
  GradientWorld world(GetParam(), kFloats);
  std::vector<Matrix> one = world.Gradients(1), three = world.Gradients(3);
  for (uint32_t boundary = 0; boundary <= world.config.layers; ++boundary) {
    const size_t n = one[boundary].rows() * one[boundary].cols();
    ASSERT_EQ(three[boundary].rows(), 3 * one[boundary].rows());
    EXPECT_TRUE(std::equal(one[boundary].row(0), one[boundary].row(0) + n, three[boundary].row(0)));
    EXPECT_FALSE(
        std::equal(one[boundary].row(0), one[boundary].row(0) + n, three[boundary].row(0) + n));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Gradient,
                         testing::Values("llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3",
                                         "phi3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(GradientText, EndsWhenTheVisitorSaysSo) {
  GradientWorld world("llama", kFloats);
  const auto rows_of = [&](uint32_t boundary) { return std::as_const(world.rows[boundary]).ref(); };
  int visits = 0;
  const absl::Status status =
      VisitGradients(world.file, world.config, {world.lengths, rows_of}, {.lowest = 1},
                     world.compute, [&](uint32_t boundary, ConstMatrixRef) {
                       ++visits;
                       return boundary == 2 ? absl::CancelledError("enough") : absl::OkStatus();
                     });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(visits, 2);
}

TEST(GradientText, SaysThatAFactoredModelHasNone) {
  const std::string gguf = SyntheticModel::Build("llama", /*factored=*/true);
  const ModelFile file = *ModelFile::Parse(BytesOf(gguf));
  Compute compute = *Compute::Create(0, "auto");
  const std::vector<uint32_t> lengths = {1};
  const Matrix rows(1, SyntheticModel::kWidth);
  const absl::Status status = VisitGradients(
      file, *ModelConfigFromFile(file), {lengths, [&](uint32_t) { return rows.ref(); }}, {},
      compute, [](uint32_t, ConstMatrixRef) { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
}

// Sequences that need several steps, and steps that hold the end of one and the beginning of the
// next.
TEST(RunOneLayer, GivesTheSameForAnyCompany) {
  const std::string gguf = SyntheticModel::Build("llama");
  const ModelFile file = *ModelFile::Parse(BytesOf(gguf));
  const ModelConfig config = *ModelConfigFromFile(file);
  Compute compute = *Compute::Create(2, "auto");
  std::vector<uint32_t> lengths = {250, 200, 180, 3, 240, 256, 1};
  lengths.insert(lengths.end(), 150, 5);
  size_t all = 0;
  for (const uint32_t length : lengths) all += length;
  Matrix hidden(all, config.d_model);
  Random random(3);
  for (float& x : hidden.ref().span()) x = static_cast<float>(random.Uniform() - 0.5);
  Matrix together = hidden;
  ASSERT_TRUE(RunOneLayer(file, config, 1, lengths, {together.ref()}, compute, nullptr).ok());
  size_t row = 0;
  for (const uint32_t length : lengths) {
    const MatrixRef alone{hidden.row(row), length, hidden.cols()};
    ASSERT_TRUE(RunOneLayer(file, config, 1, {length}, {alone}, compute, nullptr).ok());
    row += length;
  }
  EXPECT_TRUE(std::equal(together.ref().span().begin(), together.ref().span().end(),
                         hidden.ref().span().begin()));
}

}  // namespace
}  // namespace efedllm
