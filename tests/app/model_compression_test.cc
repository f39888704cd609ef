#include "app/model_compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/factors.h"
#include "model/gguf_builder.h"
#include "model/local_model.h"
#include "model/temp_dir.h"
#include "model/text_quality.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

// A random model that is large enough for every form, and texts of random tokens.
struct World {
  World() {
    TinyLlama tiny;
    tiny.d_model = 64;
    tiny.d_ffn = 128;
    tiny.head_dim = 16;
    bytes = tiny.Build();
    file = std::make_unique<ModelFile>(*ModelFile::Parse(BytesOf(bytes)));
    compute = std::make_unique<Compute>(*Compute::Create(2, "auto"));
    options.calibration = Text(1, 12);
    options.held_out = Text(2, 4);
    options.out = folder.File("small.gguf");
    options.budget.ratio = 0.7;
  }

  static TextWindows Text(uint64_t seed, size_t windows) {
    Random random(seed);
    TextWindows text;
    for (size_t i = 0; i < windows; ++i) {
      std::vector<int32_t>& window = text.windows.emplace_back();
      while (window.size() < 64) window.push_back(static_cast<int32_t>(random.Below(20)));
    }
    return text;
  }

  absl::StatusOr<CompressionReport> Run() { return CompressModel(*file, options, *compute); }

  std::string bytes;
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Compute> compute;
  TempDir folder;
  CompressionOptions options;
};

const MethodResult& Of(const CompressionReport& report, CompressionMethod method) {
  for (const MethodResult& result : report.methods) {
    if (result.method == method) return result;
  }
  ADD_FAILURE() << "no result of " << std::string(MethodName(method));
  return report.written;
}

TEST(ModelCompression, WritesAModelThatIsAsSmallAndAsGoodAsItSays) {
  for (const CompressionMethod method : {CompressionMethod::kSvd, CompressionMethod::kFactors,
                                         CompressionMethod::kQuantize, CompressionMethod::kAny}) {
    SCOPED_TRACE(std::string(MethodName(method)));
    World world;
    world.options.method = method;
    const auto report = world.Run();
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->written.method, method);
    EXPECT_EQ(report->written.bytes, std::filesystem::file_size(world.options.out));
    EXPECT_LE(report->written.bytes, 0.7 * static_cast<double>(world.bytes.size()));

    const auto small = ModelFile::Open(world.options.out);
    ASSERT_TRUE(small.ok()) << small.status();
    EXPECT_EQ(*small->GetUint(kFactorsVersionKey), kFactorsVersion);
    if (method == CompressionMethod::kQuantize) EXPECT_FALSE(HasFactors(*small));
    if (method == CompressionMethod::kSvd) EXPECT_TRUE(HasFactors(*small));
    auto ours = LocalModel::Create(*small, {}, *world.compute);
    ASSERT_TRUE(ours.ok()) << ours.status();
    auto reference = LocalModel::Create(*world.file, {}, *world.compute);
    ModelLogits a(**ours), b(**reference);
    const auto measured = MeasureDivergence(a, b, world.options.held_out);
    ASSERT_TRUE(measured.ok());
    EXPECT_NEAR(measured->mean_kl, report->written.mean_kl, 1e-9);
    EXPECT_NEAR(measured->model.perplexity, report->written.perplexity, 1e-6);
    EXPECT_NEAR(measured->reference.perplexity, report->original_perplexity, 1e-6);
  }
}

TEST(ModelCompression, ComparesAtEqualBytes) {
  World world;
  const auto report = world.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  for (const MethodResult& result : report->methods) {
    EXPECT_LE(result.bytes, report->budget_bytes) << std::string(MethodName(result.method));
  }
  EXPECT_LT(Of(*report, CompressionMethod::kFactors).mean_kl,
            Of(*report, CompressionMethod::kPlainSvd).mean_kl);
  EXPECT_LT(Of(*report, CompressionMethod::kQuantize).mean_kl,
            Of(*report, CompressionMethod::kFactors).mean_kl);
  EXPECT_THAT(report->recommendation, HasSubstr("Plain quantization"));
  EXPECT_EQ(report->matrices.size(), 14u);
  const nlohmann::json json = CompressionReportJson(*report);
  EXPECT_EQ(json["written"]["bytes"], report->written.bytes);
  EXPECT_EQ(json["methods"].size(), report->methods.size());
}

TEST(ModelCompression, KeepsToABudgetOfKl) {
  World world;
  world.options.budget = *ParseBudget("kl=0.02");
  const auto report = world.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LE(report->written.mean_kl, 0.02);
  EXPECT_LT(report->written.bytes, world.bytes.size());
}

TEST(ModelCompression, GivesTheSameFileForAnyThreads) {
  World one, three;
  one.compute = std::make_unique<Compute>(*Compute::Create(0, "auto"));
  three.compute = std::make_unique<Compute>(*Compute::Create(3, "auto"));
  ASSERT_TRUE(one.Run().ok() && three.Run().ok());
  EXPECT_EQ(*ReadFile(one.options.out, 1u << 24), *ReadFile(three.options.out, 1u << 24));
}

TEST(ModelCompression, SaysWhatIsOutOfReach) {
  World world;
  world.options.budget.ratio = 0.01;
  const absl::Status status = world.Run().status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("at least"));
  EXPECT_FALSE(std::filesystem::exists(world.options.out));
}

TEST(ModelCompression, RefusesWhatIsFactoredAlready) {
  World world;
  ASSERT_TRUE(world.Run().ok());
  const ModelFile small = *ModelFile::Open(world.options.out);
  const auto again = CompressModel(small, world.options, *world.compute);
  EXPECT_TRUE(absl::IsInvalidArgument(again.status()));
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("factored already"));
}

CompressionReport ReportOf(double svd, double quantize, double any) {
  CompressionReport report;
  const auto add = [&](CompressionMethod method, double kl) {
    MethodResult result;
    result.method = method;
    result.mean_kl = kl;
    if (kl > 0) report.methods.push_back(result);
  };
  add(CompressionMethod::kPlainSvd, 1.0);
  add(CompressionMethod::kFactors, 0.2);
  add(CompressionMethod::kSvd, svd);
  add(CompressionMethod::kQuantize, quantize);
  add(CompressionMethod::kAny, any);
  return report;
}

TEST(Recommendation, IsWhatTheNumbersSay) {
  EXPECT_THAT(Recommend(ReportOf(0.1, 0.01, 0.01)), HasSubstr("does better at equal bytes"));
  EXPECT_THAT(Recommend(ReportOf(0.1, 0.01, 0.01)), HasSubstr("--method quantize"));
  EXPECT_THAT(Recommend(ReportOf(0.01, 0.0101, 0.01)), HasSubstr("does as well"));
  EXPECT_THAT(Recommend(ReportOf(0.01, 0.1, 0.01)), HasSubstr("--method svd"));
  EXPECT_THAT(Recommend(ReportOf(0.01, 0.02, 0.005)), HasSubstr("--method any"));
  EXPECT_THAT(Recommend(ReportOf(0.01, 0, 0.01)), HasSubstr("Only factors"));
  EXPECT_THAT(Recommend(ReportOf(0.01, 0.1, 0.01)), HasSubstr("5.0 times less"));
}

}  // namespace
}  // namespace efedllm
