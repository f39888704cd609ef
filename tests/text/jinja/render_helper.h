// A template in, its text out.
#ifndef EFEDLLM_TESTS_TEXT_JINJA_RENDER_HELPER_H_
#define EFEDLLM_TESTS_TEXT_JINJA_RENDER_HELPER_H_

#include <deque>
#include <string>

#include "absl/time/time.h"
#include "text/jinja/from_json.h"
#include "text/jinja/template.h"

namespace efedllm::jinja {

// variables: a JSON object, from the client. It is 2025-11-24 16:00 UTC.
inline absl::StatusOr<MarkedText> RenderMarked(const std::string& source,
                                               const std::string& variables = "{}",
                                               const RenderLimits& limits = {}) {
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  Runtime runtime(limits, absl::FromUnixSeconds(1764000000));
  Variables values;
  std::deque<std::string> names;
  const auto json = nlohmann::ordered_json::parse(variables);
  for (const auto& [name, value] : json.items()) {
    names.push_back(name);
    values.emplace_back(names.back(), *FromJson(value, Origin::kClient, runtime));
  }
  return parsed->Render(values, runtime);
}

// The text, or "error: " and the message.
inline std::string Rendered(const std::string& source, const std::string& variables = "{}",
                            const RenderLimits& limits = {}) {
  const auto text = RenderMarked(source, variables, limits);
  return text.ok() ? text->bytes() : "error: " + std::string(text.status().message());
}

// The text with what came from the client in [brackets].
inline std::string Marked(const std::string& source, const std::string& variables) {
  const auto text = RenderMarked(source, variables);
  if (!text.ok()) return "error: " + std::string(text.status().message());
  std::string marked;
  text->ForEachRun([&marked](absl::string_view run, Origin origin) {
    const bool client = origin == Origin::kClient;
    marked += (client ? "[" : "") + std::string(run) + (client ? "]" : "");
  });
  return marked;
}

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TESTS_TEXT_JINJA_RENDER_HELPER_H_
