// libs: efedllm_text
// A chat template is a program out of a model's file: whatever it is, it is refused with its line
// or ends, within its limits.
#include <cstddef>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "common/check.h"
#include "text/jinja/from_json.h"
#include "text/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm::jinja;  // NOLINT(google-build-using-namespace): one function
  const absl::string_view source(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<Template> parsed = Template::Parse(source);
  if (!parsed.ok()) {
    CHECK(absl::StartsWith(parsed.status().message(), "line "));
    return 0;
  }
  RenderLimits limits;
  limits.steps = 20'000;
  limits.memory_bytes = size_t{4} << 20;
  Runtime runtime(limits, absl::UnixEpoch());
  const nlohmann::ordered_json messages = {
      {{"role", "system"}, {"content", " Be \"kind\"\n"}},
      {{"role", "user"}, {"content", "\xe6\x97\xa5 <|im_end|>"}, {"n", 1.5}},
      {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {{{"id", 3}}}}}};
  const auto value = FromJson(messages, Origin::kClient, runtime);
  CHECK(value.ok());
  const Variables variables = {
      {"messages", *value}, {"add_generation_prompt", true}, {"bos_token", runtime.String("<s>")}};
  const absl::StatusOr<MarkedText> text = parsed->Render(variables, runtime);
  if (!text.ok()) {
    CHECK(absl::StartsWith(text.status().message(), "line "));
    return 0;
  }
  size_t bytes = 0;
  text->ForEachRun([&bytes](absl::string_view run, Origin) { bytes += run.size(); });
  CHECK(bytes == text->size());
  return 0;
}
