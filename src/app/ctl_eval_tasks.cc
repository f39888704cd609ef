// eval tasks: questions that a model answers right, letter for letter, or not.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "app/ctl_eval_parts.h"
#include "app/eval_tasks.h"
#include "app/local_run.h"
#include "app/text_input.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

struct TaskFlags {
  LocalFlags local;
  std::string text;
  bool wrong = false;
};

// Beside the model, as the bundled model has it.
absl::StatusOr<std::string> TasksPath(const TaskFlags& flags) {
  if (!flags.text.empty()) return flags.text;
  const std::filesystem::path model(flags.local.model);
  const std::string beside = (model.parent_path() / "eval.jsonl").string();
  if (access(beside.c_str(), R_OK) == 0) return beside;
  return absl::InvalidArgumentError(absl::StrCat("there are no questions beside the model (",
                                                 beside, "): name some with --text"));
}

void PrintScore(const std::string& name, const TaskScore& score) {
  std::printf("%-12s  %4llu / %-4llu  %6.1f %%\n", name.c_str(),
              static_cast<unsigned long long>(score.correct),
              static_cast<unsigned long long>(score.total), 100 * score.accuracy());
}

absl::Status RunTasks(const TaskFlags& flags) {
  ASSIGN_OR_RETURN(const std::string path, TasksPath(flags));
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  absl::StatusOr<std::vector<EvalTask>> tasks = ParseEvalTasks(text);
  if (!tasks.ok()) {
    return absl::Status(tasks.status().code(), absl::StrCat(path, ": ", tasks.status().message()));
  }
  LocalModelOptions options;
  options.most_context = 8192;
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run, OpenLocal(flags.local, options));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(run->file));
  ASSIGN_OR_RETURN(const ChatTemplate chat_template, ChatTemplate::ForModel(run->file, *tokenizer));
  Answerer answerer(*run->model, *tokenizer, chat_template);
  TaskScores scores;
  for (const EvalTask& task : *tasks) {
    ASSIGN_OR_RETURN(const std::string answer, answerer.Answer(task.messages));
    TaskScore& score = scores.by_task[task.skill];
    score.total += 1;
    score.correct += answer == task.answer;
    if (flags.wrong && answer != task.answer) {
      std::fprintf(stderr, "%s: wanted \"%s\", got \"%s\"\n", task.skill.c_str(),
                   task.answer.c_str(), answer.c_str());
    }
  }
  if (flags.local.json) {
    std::printf("%s\n", TaskScoresJson(scores).dump().c_str());
    return absl::OkStatus();
  }
  for (const auto& [skill, score] : scores.by_task) PrintScore(skill, score);
  PrintScore("all", scores.all());
  return absl::OkStatus();
}

}  // namespace

void AddTasksCommand(CLI::App& eval, int& exit_code) {
  auto flags = std::make_shared<TaskFlags>();
  CLI::App* command = eval.add_subcommand(
      "tasks",
      "Ask a model questions through its chat template, decode greedily, and count the answers\n"
      "that are right letter for letter: the share by skill and of all.");
  command->footer(
      "Example: efedllm-ctl eval tasks --model models/seedling/seedling-q8_0.gguf\n"
      "A line of the questions: {\"skill\": \"add\", \"messages\": [{\"role\": \"user\", "
      "\"content\":\n"
      "\"What is 1 + 2?\"}], \"answer\": \"1 + 2 = 3\"}");
  AddModelFlags(*command, flags->local, "f32");
  command->add_option("--text", flags->text,
                      "Questions, one JSON object a line; default: eval.jsonl beside the model");
  command->add_flag("--wrong", flags->wrong, "Show the wrong answers on stderr");
  AddThreadsFlag(*command, flags->local);
  AddJsonFlag(*command, flags->local,
              "{\"correct\", \"total\", \"accuracy\", \"by_task\": {skill: the same three}}");
  OnCommand(*command, exit_code, [flags] { return RunTasks(*flags); });
}

}  // namespace efedllm
