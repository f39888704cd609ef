#include "coordinator/boundary_calibration.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/basis_store.h"
#include "coordinator/boundary_calibration_text.h"
#include "model/model_file.h"
#include "model/temp_dir.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

ModelFile Seedling() {
  return *ModelFile::Open(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf");
}

// A small calibration: some seconds even under a sanitizer. Its text is the beginning of the
// sample.
CalibrationOptions Small(std::vector<uint32_t> boundaries) {
  CalibrationOptions options;
  options.boundaries = std::move(boundaries);
  options.text = std::string(CalibrationSample().substr(0, 4000));
  options.tokens = 200;
  options.threads = 2;
  return options;
}

TEST(BoundaryCalibration, GivesBasesThatCodeForALittleHarm) {
  const ModelFile file = Seedling();
  CalibrationOptions options = Small({6, 2, 6});
  options.text.clear();  // the sample
  const auto calibration = CalibrateBoundaries(file, options);
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  ASSERT_EQ(calibration->bases.size(), 2u);
  EXPECT_EQ(calibration->bases[0]->boundary, 2u);
  EXPECT_EQ(calibration->bases[1]->boundary, 6u);
  EXPECT_GT(calibration->tokens, 200u);
  EXPECT_GT(calibration->metric_tokens, 200u);
  EXPECT_GT(calibration->divergence_tokens, 100u);
  for (const auto& basis : calibration->bases) {
    EXPECT_EQ(basis->d_model, 256u);
    for (const CoefficientModel* model : {&basis->klt, &basis->scalar}) {
      EXPECT_GT(model->kl[0], 1e-5);
      EXPECT_GT(model->kl[1], 4 * model->kl[0]);
      EXPECT_LT(model->kl[1], 1);
    }
    EXPECT_TRUE(ParseBoundaryBasis([](const std::string& bytes) {
                  return std::vector<uint8_t>(bytes.begin(), bytes.end());
                }(basis->Serialize()))
                    .ok());
  }
}

TEST(BoundaryCalibration, GivesTheSameForAnyThreads) {
  const ModelFile file = Seedling();
  CalibrationOptions options = Small({4});
  const auto two = CalibrateBoundaries(file, options);
  options.threads = 1;
  options.low_priority = true;
  const auto one = CalibrateBoundaries(file, options);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(one->bases[0]->id(), two->bases[0]->id());
}

TEST(BoundaryCalibration, CanBeCancelledAndReportsHowFarItIs) {
  const ModelFile file = Seedling();
  CalibrationOptions options = Small({0, 8});
  double last = 0;
  options.progress = [&last](double share, absl::string_view) {
    EXPECT_GE(share, last);
    EXPECT_LE(share, 1);
    last = share;
  };
  ASSERT_TRUE(CalibrateBoundaries(file, options).ok());
  EXPECT_GT(last, 0.9);
  int asked = 0;
  options.progress = nullptr;
  options.cancelled = [&asked] { return ++asked > 20; };
  EXPECT_EQ(CalibrateBoundaries(file, options).status().code(), absl::StatusCode::kCancelled);
}

TEST(BoundaryCalibration, RefusesBoundariesThatAreNotThereAndTextsThatAreTooShort) {
  const ModelFile file = Seedling();
  EXPECT_EQ(CalibrateBoundaries(file, Small({9})).status().code(),
            absl::StatusCode::kInvalidArgument);
  CalibrationOptions options = Small({2});
  options.text = "Hello.";
  EXPECT_EQ(CalibrateBoundaries(file, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BoundaryCalibration, IsKeptAndOnlyWhatIsMissingIsDone) {
  const TempDir dir;
  const BasisStore store(dir.path() + "/bases");
  const ModelFile file = Seedling();
  const auto first = LoadOrCalibrate(file, Small({2}), store);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->from_store, 0u);
  const auto second = LoadOrCalibrate(file, Small({2, 8}), store);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->from_store, 1u);
  ASSERT_EQ(second->bases.size(), 2u);
  EXPECT_EQ(second->bases[0]->id(), first->bases[0]->id());
  const auto third = LoadCalibration(file, Small({0, 2, 8}), store);
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->from_store, 2u);
  EXPECT_EQ(third->tokens, 0u);
}

TEST(BoundaryCalibration, TakesWhatTheOperatorChose) {
  const TempDir dir;
  const BasisStore store(dir.path() + "/bases");
  const ModelFile file = Seedling();
  CalibrationOptions own = Small({4});
  own.text.clear();
  for (int i = 0; i < 40; ++i) own.text += "Once there was a fox named Milo. He liked apples.\n";
  const auto calibrated = LoadOrCalibrate(file, own, store);
  ASSERT_TRUE(calibrated.ok()) << calibrated.status();
  CalibrationOptions any;
  any.boundaries = {4};
  EXPECT_TRUE(LoadCalibration(file, any, store)->bases.empty());
  ASSERT_TRUE(store.Choose(ModelDigest(file), CalibrationDigest(own)).ok());
  const auto loaded = LoadCalibration(file, any, store);
  ASSERT_EQ(loaded->bases.size(), 1u);
  EXPECT_EQ(loaded->bases[0]->id(), calibrated->bases[0]->id());
}

TEST(CalibrationText, ShowsChatsAsTheModelsTemplateHasThem) {
  const ModelFile file = Seedling();
  const auto windows = CutWindows(file,
                                  "%%% a.chat\nuser: What is 1 + 1?\nassistant: 1 + 1 = 2\n"
                                  "%%% b\nOne text.\n%%% b\nAnother one.\n",
                                  {.context = 1024, .tokens = 1000});
  ASSERT_TRUE(windows.ok()) << windows.status();
  ASSERT_EQ(windows->windows.size(), 2u);
  EXPECT_EQ(windows->kinds, (std::vector<std::string>{"a.chat", "b"}));
  EXPECT_EQ(windows->windows[0][0], 1);    // BOS
  EXPECT_EQ(windows->windows[0][1], 259);  // <|im_start|>
  EXPECT_EQ(windows->windows[1][0], 1);
}

TEST(CalibrationText, KeepsToItsLimits) {
  const ModelFile file = Seedling();
  const auto windows =
      CutWindows(file, CalibrationSample(), {.context = 100, .tokens = 2000, .kinds = {"story"}});
  ASSERT_TRUE(windows.ok());
  EXPECT_EQ(windows->tokens(), 2000u);
  for (const std::vector<int32_t>& window : windows->windows) EXPECT_LE(window.size(), 100u);
  const auto tastes = CutWindows(file, CalibrationSample(),
                                 {.context = 1024, .tokens = 9000, .tokens_per_kind = 50});
  EXPECT_EQ(tastes->tokens(), 6 * 50u);
}

TEST(CalibrationText, SparesSomeWindowsFromAllOverTheText) {
  const ModelFile file = Seedling();
  TokenWindows windows = *CalibrationWindows(file, CalibrationSample(), 128, 8000);
  const uint64_t all = windows.tokens();
  const TokenWindows taken = TakeSome(windows, 1000);
  EXPECT_EQ(windows.tokens() + taken.tokens(), all);
  EXPECT_NEAR(static_cast<double>(taken.tokens()), 1000, 150);
  TokenWindows one;
  one.windows = {{1, 2, 3}};
  one.kinds = {""};
  EXPECT_TRUE(TakeSome(one, 1000).windows.empty());
  EXPECT_EQ(one.tokens(), 3u);
}

}  // namespace
}  // namespace efedllm
