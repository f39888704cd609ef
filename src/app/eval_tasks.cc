#include "app/eval_tasks.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "text/text_stream.h"

namespace efedllm {
namespace {

constexpr size_t kMostAnswerTokens = 120;
constexpr SequenceId kQuestion{1};

nlohmann::json ScoreJson(const TaskScore& score) {
  return {{"correct", score.correct}, {"total", score.total}, {"accuracy", score.accuracy()}};
}

EvalTask TaskFromJson(const nlohmann::json& json) {
  EvalTask task;
  task.skill = json.at("skill").get<std::string>();
  task.answer = json.at("answer").get<std::string>();
  for (const nlohmann::json& message : json.at("messages")) {
    task.messages.push_back(
        {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  }
  return task;
}

}  // namespace

absl::StatusOr<std::vector<EvalTask>> ParseEvalTasks(absl::string_view json_lines) {
  std::vector<EvalTask> tasks;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(json_lines, '\n')) {
    ++number;
    if (line.empty() || line == "\r") continue;
    try {
      tasks.push_back(TaskFromJson(nlohmann::json::parse(line.begin(), line.end())));
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat(
          "line ", number, " is not a question with skill, messages and answer: ", error.what()));
    }
  }
  if (tasks.empty()) return absl::InvalidArgumentError("there are no questions");
  return tasks;
}

double TaskScore::accuracy() const {
  return total == 0 ? 0 : static_cast<double>(correct) / static_cast<double>(total);
}

TaskScore TaskScores::all() const {
  TaskScore sum;
  for (const auto& [skill, score] : by_task) {
    sum.correct += score.correct;
    sum.total += score.total;
  }
  return sum;
}

nlohmann::json TaskScoresJson(const TaskScores& scores) {
  nlohmann::json json = ScoreJson(scores.all());
  json["by_task"] = nlohmann::json::object();
  for (const auto& [skill, score] : scores.by_task) json["by_task"][skill] = ScoreJson(score);
  return json;
}

// Adds tokens to the sequence at position first, and returns what the model would say next.
absl::StatusOr<int32_t> Answerer::Feed(absl::Span<const int32_t> tokens, uint32_t first) {
  const size_t most = model_.options().max_tokens;
  Matrix hidden(std::min(most, tokens.size()), model_.config().d_model);
  size_t rows = 0;
  for (size_t done = 0; done < tokens.size(); done += rows) {
    rows = std::min(most, tokens.size() - done);
    Step step;
    step.spans = {{kQuestion, first + static_cast<uint32_t>(done), static_cast<uint32_t>(rows)}};
    RETURN_IF_ERROR(
        model_.RunStages(step, tokens.subspan(done, rows), {hidden.row(0), rows, hidden.cols()}));
  }
  Matrix logits(1, model_.config().vocab);
  model_.Logits({hidden.row(rows - 1), 1, hidden.cols()}, logits.ref());
  return static_cast<int32_t>(ArgMax({logits.row(0), logits.cols()}));
}

absl::StatusOr<std::string> Answerer::Answer(const std::vector<ChatMessage>& messages) {
  ASSIGN_OR_RETURN(const std::vector<PromptPiece> pieces, chat_template_.Render(messages));
  std::vector<int32_t> tokens = tokenizer_.EncodePrompt(pieces, /*add_special=*/true);
  if (tokens.empty() || tokens.size() > model_.options().context) {
    return absl::InvalidArgumentError(absl::StrCat("a prompt of ", tokens.size(),
                                                   " tokens; the context is ",
                                                   model_.options().context, " tokens long"));
  }
  TextStream text({});
  std::string answer;
  uint32_t length = 0;
  for (size_t said = 0; said < kMostAnswerTokens; ++said) {
    if (length + tokens.size() > model_.options().context) break;
    ASSIGN_OR_RETURN(const int32_t next, Feed(tokens, length));
    if (tokenizer_.IsEndOfGeneration(next)) break;
    length += static_cast<uint32_t>(tokens.size());
    answer += text.Append(tokenizer_.Piece(next, /*special=*/false));
    tokens = {next};
  }
  return answer + text.Finish();
}

}  // namespace efedllm
