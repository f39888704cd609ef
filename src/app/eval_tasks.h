// Questions with one right answer each, as models/seedling/eval.jsonl has them.
#ifndef EFEDLLM_APP_EVAL_TASKS_H_
#define EFEDLLM_APP_EVAL_TASKS_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/local_model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace efedllm {

struct EvalTask {
  std::string skill;
  std::vector<ChatMessage> messages;
  std::string answer;
};

// One JSON object a line: {"skill", "messages": [{"role", "content"}], "answer"}. InvalidArgument
// names the line.
absl::StatusOr<std::vector<EvalTask>> ParseEvalTasks(absl::string_view json_lines);

struct TaskScore {
  uint64_t correct = 0;
  uint64_t total = 0;

  double accuracy() const;
};

struct TaskScores {
  std::map<std::string, TaskScore> by_task;

  TaskScore all() const;
};

// {"correct", "total", "accuracy", "by_task": {skill: {"correct", "total", "accuracy"}}}.
nlohmann::json TaskScoresJson(const TaskScores& scores);

// What a model says, greedily, until it ends its turn or has said 120 tokens. All borrowed.
class Answerer {
 public:
  Answerer(LocalModel& model, const Tokenizer& tokenizer, const ChatTemplate& chat_template)
      : model_(model), tokenizer_(tokenizer), chat_template_(chat_template) {}

  // InvalidArgument: the template doesn't take these messages, or they don't fit the context.
  absl::StatusOr<std::string> Answer(const std::vector<ChatMessage>& messages);

 private:
  absl::StatusOr<int32_t> Feed(absl::Span<const int32_t> tokens, uint32_t first);

  LocalModel& model_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_template_;
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_EVAL_TASKS_H_
