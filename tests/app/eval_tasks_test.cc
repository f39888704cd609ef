#include "app/eval_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/file.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

TEST(EvalTasks, ReadsJsonLines) {
  const auto tasks = ParseEvalTasks(
      "{\"skill\": \"add\", \"messages\": [{\"role\": \"user\", \"content\": \"1 + 2?\"}], "
      "\"answer\": \"3\"}\n\n");
  ASSERT_TRUE(tasks.ok());
  ASSERT_EQ(tasks->size(), 1u);
  EXPECT_EQ((*tasks)[0].skill, "add");
  EXPECT_EQ((*tasks)[0].messages[0].content, "1 + 2?");
  EXPECT_EQ((*tasks)[0].answer, "3");
}

TEST(EvalTasks, NamesALineThatIsNoQuestion) {
  for (const char* line : {"{", "[]", "{\"skill\": 3}", "{\"skill\": \"a\", \"answer\": \"b\"}"}) {
    const auto status = ParseEvalTasks(std::string("\n") + line).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 2"));
  }
  EXPECT_FALSE(ParseEvalTasks("").ok());
}

TEST(EvalTasks, JsonHasTotalsAndSkills) {
  TaskScores scores;
  scores.by_task["add"] = {3, 4};
  scores.by_task["spell"] = {1, 1};
  EXPECT_EQ(TaskScoresJson(scores), nlohmann::json::parse(R"({"correct":4,"total":5,"accuracy":0.8,
      "by_task":{"add":{"correct":3,"total":4,"accuracy":0.75},
                 "spell":{"correct":1,"total":1,"accuracy":1.0}}})"));
}

TEST(EvalTasks, TheBundledModelAnswersTheBundledQuestions) {
  const std::string folder = EFEDLLM_SOURCE_DIR "/models/seedling/";
  const ModelFile file = *ModelFile::Open(folder + "seedling-q8_0.gguf");
  Compute compute = *Compute::Create(2, "auto");
  const auto model = *LocalModel::Create(file, {}, compute);
  const auto tokenizer = *Tokenizer::Create(file);
  const auto chat_template = ChatTemplate::ForModel(file, *tokenizer);
  ASSERT_TRUE(chat_template.ok());
  Answerer answerer(*model, *tokenizer, *chat_template);
  const auto tasks = *ParseEvalTasks(*ReadFile(folder + "eval.jsonl", 1 << 20));
  ASSERT_EQ(tasks.size(), 330u);
  size_t correct = 0;
  for (size_t i = 0; i < tasks.size(); i += 11) {  // 30 of them; `eval tasks` asks all
    correct += *answerer.Answer(tasks[i].messages) == tasks[i].answer;
  }
  EXPECT_GE(correct, 28u);
}

}  // namespace
}  // namespace efedllm
