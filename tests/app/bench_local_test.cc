#include "app/bench_local.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/status_macros.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

TEST(BenchLocal, NamesTestsAsTheIssueDoes) {
  EXPECT_EQ(BenchTestName({false, 512, 1, 0}), "pp512");
  EXPECT_EQ(BenchTestName({true, 64, 1, 0}), "tg64");
  EXPECT_EQ(BenchTestName({true, 64, 8, 0}), "tg64@8");
  EXPECT_EQ(BenchTestName({true, 64, 1, 8192}), "tg64@d8192");
  EXPECT_EQ(BenchTestName({true, 64, 8, 8192}), "tg64@8@d8192");
}

TEST(BenchLocal, MakesEachTestOfTheListsOnce) {
  std::vector<std::string> names;
  for (const BenchTest& test : BenchTests({128, 0}, {64}, {1, 8}, {0, 100})) {
    names.push_back(BenchTestName(test));
  }
  EXPECT_THAT(names, testing::ElementsAre("pp128", "tg64", "tg64@8", "pp128@d100", "tg64@d100",
                                          "tg64@8@d100"));
  EXPECT_TRUE(BenchTests({0}, {0}, {1}, {0}).empty());
}

TEST(BenchLocal, MedianIsTheMiddleOrTheMeanOfTheTwo) {
  BenchResult result;
  result.samples = {30, 10, 20};
  EXPECT_EQ(result.median(), 20);
  EXPECT_EQ(result.deviation(), 10);
  result.samples = {10, 40};
  EXPECT_EQ(result.median(), 25);
  result.samples = {7};
  EXPECT_EQ(result.deviation(), 0);
}

TEST(BenchLocal, JsonHasTestThreadsMedianAndSamplesAndNothingElse) {
  const nlohmann::json json = BenchJson({{{true, 64, 8, 0}, 2, {1.5, 2.5, 3.5}}});
  EXPECT_EQ(json, nlohmann::json::parse(
                      R"([{"test":"tg64@8","threads":2,"median":2.5,"samples":[1.5,2.5,3.5]}])"));
}

TEST(BenchLocal, TableRowsAreAsWideAsTheirHeader) {
  ModelSummary model;
  model.architecture = "llama";
  model.parameters = 1'100'000'000;
  model.bytes = 1'170'000'000;
  const std::string row = BenchTableRow(model, {{false, 512, 1, 0}, 2, {44.2, 44.1}});
  EXPECT_THAT(row, HasSubstr("| llama 1.1B"));
  EXPECT_THAT(row, HasSubstr("pp512"));
  EXPECT_THAT(row, HasSubstr("44.15 ±    0.07 |"));
  const std::string header = BenchTableHeader();
  EXPECT_EQ(row.size() - 1 /* ± has two bytes */, header.find('\n') + 1);
}

TEST(BenchLocal, RunsEveryTestOfTheBundledModelBeyondItsContext) {
  const ModelFile file = *ModelFile::Open(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf");
  Compute compute = *Compute::Create(2, "auto");
  const std::vector<BenchTest> tests = BenchTests({300}, {5}, {1, 3}, {0, 1100});
  const auto model = *LocalModel::Create(file, BenchModelOptions(tests), compute);
  BenchRunner runner(*model);
  for (const BenchTest& test : tests) {
    for (int run = 0; run < 2; ++run) {
      const absl::StatusOr<double> seconds = runner.Run(test);
      ASSERT_TRUE(seconds.ok()) << BenchTestName(test) << ": " << seconds.status();
      EXPECT_GT(*seconds, 0);
    }
  }
  EXPECT_EQ(BenchTokens({true, 5, 3, 0}), 15u);
}

}  // namespace
}  // namespace efedllm
