#include "faultsim/tiny_model.h"

#include <gtest/gtest.h>

#include <set>

namespace efedllm::faultsim {
namespace {

TEST(TinyModel, AnswersEachQuestionAtItsFullLength) {
  const auto model = TinyModel::Create(testing::TempDir());
  ASSERT_TRUE(model.ok()) << model.status();
  std::set<std::vector<int32_t>> answers;
  for (size_t i = 0; i < (*model)->questions(); ++i) {
    EXPECT_EQ((*model)->Answer(i).size(), (*model)->Question(i).max_tokens);
    answers.insert((*model)->Answer(i));
  }
  EXPECT_EQ(answers.size(), (*model)->questions()) << "two answers are alike: they tell little";
}

}  // namespace
}  // namespace efedllm::faultsim
